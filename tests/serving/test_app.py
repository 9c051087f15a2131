"""`/score`, `/select` and what every request passes: scores equal offline ones, and what is wrong is said."""

import json
import logging
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

import releases
from conftest import REPO
from freeprm.scorers.base import Scorer, ScoringOptions, load_scorer, rollouts_of
from freeprm.serving.service import Limits
from held import Held
from patience import PATIENCE, wait_until
from releases import save_released, seeded

PROMPT = "the sum of 3 and 4?"
RESPONSES = ["Step 1: we add.\nStep 2: so 7", "it is 8", "no, it is not"]


def test_scores_are_those_of_offline_scoring(client_of, scorer: Scorer):
    answer = client_of(scorer).post("/score", json={"prompt": PROMPT, "responses": RESPONSES, "tokens": True}).json()
    offline = scorer.score(PROMPT, RESPONSES)  # type: ignore[attr-defined]  # a log-ratio has it
    assert (answer["scorer"], answer["kind"], answer["reward"]) == ("implicit", "log_odds", "with-reference")
    for index, (found, expected) in enumerate(zip(answer["results"], offline, strict=True)):
        assert found["index"] == index
        assert [(step["start"], step["stop"]) for step in found["steps"]] == [tuple(span) for span in expected.steps]
        assert [step["text"] for step in found["steps"]] == [RESPONSES[index][a:b] for a, b in expected.steps]
        assert [step["score"] for step in found["steps"]] == pytest.approx(expected.step_rewards, abs=1e-5)
        assert [step["q"] for step in found["steps"]] == pytest.approx(expected.q_values, abs=1e-5)
        assert [step["p_correct"] for step in found["steps"]] == pytest.approx(expected.p_correct, abs=1e-5)
        assert [token["reward"] for token in found["tokens"]] == pytest.approx(expected.token_rewards, abs=1e-5)
        assert found["score"] == pytest.approx(min(expected.step_rewards), abs=1e-5)
        assert found["reward"] == pytest.approx(expected.reward, abs=1e-5)
        assert found["p_correct"] == pytest.approx(expected.p_correct[-1], abs=1e-5)
        assert found["steps"][found["lowest_step"]]["score"] == found["score"]


def test_whatever_is_asked_for_at_the_same_time_changes_no_score(client_of, scorer: Scorer):
    client = client_of(scorer)
    asked = [{"prompt": f"{n % 3} and {n}?", "responses": RESPONSES[: 1 + n % 3]} for n in range(24)]
    alone = [client.post("/score", json=one).json() for one in asked]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda one: client.post("/score", json=one).json(), asked))
    for one, other in zip(alone, together, strict=True):
        rewards = [[found["reward"] for found in answer["results"]] for answer in (one, other)]
        assert rewards[0] == pytest.approx(rewards[1], abs=1e-5)


def test_a_conversation_given_steps_and_a_truncated_response_are_scored_as_such(client_of, scorer: Scorer):
    steps = ["we add, ", "so 7"]
    turns = [{"role": "system", "content": "add"}, {"role": "user", "content": PROMPT}]
    whole, cut = (
        client_of(scorer)
        .post(
            "/score",
            json={
                "messages": turns, "tokens": True,
                "responses": [{"text": "we add, so 7", "steps": steps}, {"text": "we add", "truncated": True}],
            },
        )
        .json()["results"]
    )  # fmt: skip
    assert [step["text"] for step in whole["steps"]] == steps
    rollouts = rollouts_of(tuple(turns), ["we add"], truncated=True)
    found, _ = scorer.score_rollouts(rollouts, ScoringOptions(tokens=True))
    assert cut["reward"] == pytest.approx(found[0].reward, abs=1e-5)
    assert whole["tokens"][-1]["start"] == whole["tokens"][-1]["stop"]  # its end-of-turn token
    assert cut["tokens"][-1]["start"] < cut["tokens"][-1]["stop"]


def test_selection_is_that_of_its_own_scores(client_of, scorer: Scorer):
    asked = {"prompt": PROMPT, "responses": [*RESPONSES, "so it is 7"], "answers": ["7", "8", None, "7"]}
    answer = client_of(scorer).post("/select", json=asked).json()
    ranked = answer["candidates"]
    assert [one["score"] for one in ranked] == sorted((one["score"] for one in ranked), reverse=True)
    assert answer["best_of_n"]["index"] == ranked[0]["index"]
    assert answer["majority"] == {"index": 0, "answer": "7", "response": RESPONSES[0], "tied": False}
    sums: dict[str, float] = {}
    for one in ranked:
        sums[one["answer"]] = sums.get(one["answer"], 0.0) + one["weight"]
    del sums[None]  # type: ignore[arg-type]  # without an answer there is no vote
    assert answer["weighted_vote"]["answer"] == max(sums, key=sums.__getitem__)


def test_an_answer_that_is_said_to_be_none_is_none_whatever_the_text_says(client_of):
    body = {"prompt": "?", "responses": [r"\boxed{7}", r"\boxed{8}"], "answers": [None, "8"]}
    answer = client_of(Held()).post("/select", json=body).json()
    assert (answer["majority"]["answer"], answer["weighted_vote"]["answer"]) == ("8", "8")
    assert {one["index"]: one["answer"] for one in answer["candidates"]} == {0: None, 1: "8"}


def test_answers_are_extracted_where_none_are_given(client_of):
    responses = [r"So \boxed{7}.", "The answer is 7", r"\boxed{8}"]
    answer = client_of(Held()).post("/select", json={"prompt": "?", "responses": responses}).json()
    assert {one["index"]: one["answer"] for one in answer["candidates"]} == {0: "7", 1: "7", 2: "8"}
    assert answer["best_of_n"]["index"] == 1  # the longest text
    assert answer["majority"]["answer"] == "7"


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/score", {"responses": ["a"]}, "expected one of `prompt` (text) and `messages`"),
        ("/score", {"prompt": "x", "messages": [], "responses": ["a"]}, "expected one of `prompt`"),
        ("/score", {"messages": [], "responses": ["a"]}, "messages: is empty"),
        ("/score", {"prompt": "x", "responses": []}, "responses: List should have at least 1 item"),
        ("/score", {"prompt": "x", "respones": ["a"]}, "respones: Extra inputs are not permitted"),
        ("/score", {"prompt": "x", "responses": [{"txt": "a"}]}, "txt"),
        ("/score", {"prompt": "x", "responses": ["a"] * 9}, "9 responses; expected 8 or fewer in one request"),
        ("/score", {"prompt": "x", "responses": ["a", ""]}, "response 1: is empty"),
        ("/score", {"prompt": "x", "responses": ["a " * 200]}, "are allowed"),
        ("/score", {"prompt": "x", "responses": ["a"], "reward": "with"}, "with"),
        ("/score", {"prompt": "x", "responses": ["a"], "splitter": "word"}, "splitter 'word': expected one of"),
        ("/score", {"prompt": "x", "responses": ["a"], "aggregator": "minn"}, "Did you mean 'min'?"),
        ("/score", {"prompt": "x", "responses": [{"text": "ab", "steps": ["a", "c"]}]}, "step"),
        ("/select", {"prompt": "x", "responses": ["a"], "answers": []}, "0 answers of 1 responses"),
        ("/select", {"prompt": "x", "responses": ["a"], "weighting": "soft"}, "no 'soft'"),
        ("/select", {"prompt": "x", "responses": ["a"], "weight_scale": 0}, "weight_scale: Input should be greater"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(client_of, scorer: Scorer, path: str, body: object, told: str):
    answer = client_of(scorer).post(path, json=body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_what_is_no_json_is_told_where(client_of):
    answer = client_of(Held()).post("/score", content=b'{"prompt":', headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "not JSON, at character 10")


def test_what_is_too_long_may_be_left_out_with_its_reason(client_of, scorer: Scorer):
    body = {"prompt": "x", "responses": ["a", "b " * 200, ""], "too_long": "exclude"}
    kept, long, empty = client_of(scorer).post("/score", json=body).json()["results"]
    assert "score" in kept
    assert long == {"index": 1, "error": "is longer, with its prompt, than the model's context"}
    assert empty == {"index": 2, "error": "is empty"}


def test_a_body_that_is_too_large_is_refused_also_where_its_size_is_not_told(client_of):
    client = client_of(Held())
    assert client.post("/score", content=b" " * 20_001).status_code == 413
    assert client.post("/score", content=iter([b" " * 15_000] * 2)).status_code == 413


def test_a_key_opens_everything_but_what_needs_none(client_of):
    client = client_of(Held(), key="secret")
    body = {"prompt": "?", "responses": ["a"]}
    refused = client.post("/score", json=body)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert client.post("/score", json=body, headers={"authorization": "Bearer secre"}).status_code == 401
    assert client.post("/score", json=body, headers={"authorization": "Bearer secret"}).status_code == 200
    assert [client.get(path).status_code for path in ("/health", "/ready", "/", "/page.js")] == [200] * 4
    assert [client.get(path).status_code for path in ("/spec", "/metrics", "/runs", "/openapi.json")] == [401] * 4


def test_a_server_is_alive_before_its_model_is_loaded_and_ready_after(client_of):
    loaded = Event()

    def load() -> Held:
        assert loaded.wait(PATIENCE)
        return Held()

    client = client_of(load, wait=False)
    assert client.get("/health").status_code == 200
    for answer in (client.get("/ready"), client.post("/score", json={"prompt": "?", "responses": ["a"]})):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "is being loaded" in answer.json()["error"]["message"]
    loaded.set()
    wait_until(lambda: client.get("/ready").status_code == 200)


def test_a_full_queue_is_answered_with_429_and_a_late_request_with_504(client_of):
    scorer = Held()
    client = client_of(scorer, max_waiting=2, limits=Limits(responses=8, body_bytes=1000, seconds=0.05))
    scorer.go.clear()
    ask = {"prompt": "?", "responses": ["a", "b"]}
    late = client.post("/score", json=ask)
    assert (late.status_code, late.json()["error"]["message"]) == (504, "not scored in 0.05 s")
    busy = client.post("/score", json=ask)
    assert busy.status_code == 429
    assert int(busy.headers["retry-after"]) >= 1
    scorer.go.set()
    wait_until(lambda: client.post("/score", json=ask).status_code == 200)


def test_a_fault_of_ours_is_a_500_without_its_inside(client_of, caplog: pytest.LogCaptureFixture):
    answer = client_of(Held()).post("/score", json={"prompt": "?", "responses": ["broken"]})
    assert answer.status_code == 500
    assert "Zero" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_each_request_is_numbered_logged_and_measured(client_of, caplog: pytest.LogCaptureFixture):
    client = client_of(Held())
    with caplog.at_level(logging.INFO, logger="freeprm.serving"):
        named = client.post("/score", json={"prompt": "?", "responses": ["a", "b"]}, headers={"x-request-id": "mine"})
        other = client.get("/nothing", headers={"x-request-id": "bad\tid"})
        client.get("/health")
    assert named.headers["x-request-id"] == "mine"
    assert len(other.headers["x-request-id"]) == 32
    lines = [record.fields for record in caplog.records if record.getMessage() == "request"]  # type: ignore[attr-defined]
    assert [(line["id"], line["path"], line["status"]) for line in lines] == [
        ("mine", "/score", 200), (other.headers["x-request-id"], "/nothing", 404),
    ]  # fmt: skip
    measured = client.get("/metrics").text
    assert 'freeprm_requests_total{path="/score",status="200"} 1.0' in measured
    assert 'freeprm_requests_total{path="other",status="404"} 1.0' in measured
    assert "freeprm_scored_responses_total 2.0" in measured
    assert "freeprm_waiting_responses 0.0" in measured


def test_the_spec_says_what_is_served(client_of, scorer: Scorer):
    spec = client_of(scorer).get("/spec").json()
    assert spec["rewards"] == ["with-reference"]
    assert spec["choices"]["rewards"] == ["with-reference", "without-reference", "reference-only"]
    assert "min" in spec["choices"]["aggregators"]
    assert spec["settings"]["policy_sha256"] == scorer.identity()["policy_sha256"]
    assert json.dumps(spec)
    whole = client_of(Held()).get("/spec").json()
    assert whole["choices"] == {"rewards": [], "splitters": [], "aggregators": []}


def test_a_released_reward_model_is_served_with_its_probabilities_and_its_errors(client_of, tmp_path: Path):
    """Math-Shepherd's: P(right) of each step, read at a marker that a response must not hold."""
    folder = save_released(tmp_path, seeded(releases.mistral), releases.mistral_tokenizer())
    scorer = load_scorer(folder, scorer="math_shepherd", device="cpu")
    client = client_of(scorer)
    body = {"prompt": "What is 3 + 4 - 2?", "responses": [releases.RESPONSE]}
    answer = client.post("/score", json=body).json()
    (found,) = answer["results"]
    offline, _ = scorer.score_rollouts(rollouts_of(body["prompt"], body["responses"]))
    assert answer["kind"] == "probability"
    assert [step["score"] for step in found["steps"]] == pytest.approx(offline[0].step_scores, abs=1e-5)
    assert [step["p_correct"] for step in found["steps"]] == [step["score"] for step in found["steps"]]
    assert found["score"] == min(offline[0].step_scores or ())
    with ThreadPoolExecutor(2) as pool:
        marked = {"prompt": "One?", "responses": ["two ки"]}
        good, bad = pool.map(lambda one: client.post("/score", json=one), [body, marked])
    assert good.status_code == 200
    assert (bad.status_code, "holds the step marker" in bad.text) == (400, True)
    assert "with-reference" in client.post("/score", json={**body, "reward": "with-reference"}).text


CALLS = [
    call
    for block in re.findall(
        r"^```bash\n(.*?)^```", (REPO / "docs" / "serving.md").read_text(encoding="utf-8"), re.M | re.S
    )
    for call in re.split(r"^(?=curl )", block, flags=re.M)
    if call.startswith("curl ")
]


def test_the_documentation_shows_calls():
    assert {re.findall(r":8000(/\w+)", call)[0] for call in CALLS} >= {"/score", "/select", "/spec"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.split()[1])
def test_a_call_of_the_documentation_is_answered(url_of, scorer: Scorer, call: str):
    local = call.replace("http://127.0.0.1:8000", url_of(scorer)).replace("curl ", "curl --fail-with-body --silent ", 1)
    done = subprocess.run(["bash", "-c", local], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    if "/metrics" in call:
        assert "freeprm_requests_total" in done.stdout
        return
    answer = json.loads(done.stdout)
    if "/score" in call:
        assert [step["text"] for step in answer["results"][0]["steps"]] == ["2 + 3 is 5.\n", "The answer is \\boxed{5}"]
    if "/select" in call:
        assert (answer["majority"]["answer"], answer["aggregator"]) == ("5", "mean")
