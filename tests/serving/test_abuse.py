"""What no well-meaning client sends: each is refused with a message, and nobody else's scores change."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from freeprm.scorers.base import Scorer, Scores
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.serving.client import Client
from freeprm.serving.service import Limits
from held import Held
from patience import PATIENCE, wait_until
from served import application, listening

SCORING = ("/score", "/select", "/view", "/get_reward", "/pooling", "/classify")
JSON = {"content-type": "application/json"}
KNOWN = {"prompt": "the sum of 3 and 4?", "responses": ["Step 1: we add.\nStep 2: so 7", "it is 8"]}


@pytest.fixture(scope="module")
def url(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a folder of runs, in which there are none."""
    limits = Limits(responses=4, body_bytes=200_000, seconds=PATIENCE)
    with listening(application(scorer, limits=limits, runs=tmp_path_factory.mktemp("runs"))) as url:
        yield url


@contextmanager
def unimpressed(url: str, scorer: ImplicitPRM) -> Iterator[None]:
    """Meanwhile another client's scores are the local ones."""
    expected = [one.reward for one in scorer.score(KNOWN["prompt"], KNOWN["responses"])]
    ended = Event()

    def ask() -> int:
        n_asked = 0
        with Client(url) as client:
            while not (ended.wait(0.05) and n_asked):
                found = [one.reward for one in client.score(KNOWN["prompt"], KNOWN["responses"])]
                assert found == pytest.approx(expected, abs=1e-5)
                n_asked += 1
        return n_asked

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            yield
        finally:
            ended.set()
        assert asked.result(PATIENCE) > 0


def refused(answer: Any, status: int = 400) -> str:
    """The message of an answer that refuses."""
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    message: str = answer.json()["error"]["message"]
    assert message
    return message


CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    negative_data_rejection, unsupported_method,
]  # fmt: skip


def fuzz(url: str, *, n_examples: int) -> int:
    """Ask whatever the schema allows, and what it does not; how many requests were answered."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    n_asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=st.one_of(operation.as_strategy(mode) for mode in schemathesis.GenerationMode))
        @settings(
            max_examples=n_examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(case: schemathesis.Case) -> None:
            nonlocal n_asked
            case.call_and_validate(checks=CHECKS)
            n_asked += 1

        ask()
    return n_asked


def test_whatever_the_schema_allows_is_answered_or_refused_by_it(url: str, scorer: ImplicitPRM):
    with unimpressed(url, scorer):
        assert fuzz(url, n_examples=5) > 40


@pytest.mark.slow
def test_much_that_the_schema_allows_is_answered_or_refused_by_it(url: str, scorer: ImplicitPRM):
    with unimpressed(url, scorer):
        assert fuzz(url, n_examples=60) > 300


@pytest.mark.parametrize("path", SCORING)
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "body: Field required"),
        (b'{"prompt": "a", "responses": ["a"]', "not JSON, at character"),
        (b"null", "valid dictionary"),
        (b"[" * 50_000, "error parsing the body: maximum recursion depth"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "error parsing the body: Exceeds the limit"),
        (b'{"prompt": "\xff", "responses": ["a"]}', "error parsing the body: 'utf-8' codec can't decode byte 0xff"),
    ],
    ids=["empty", "cut off", "null", "deep", "huge number", "no UTF-8"],
)
def test_what_is_no_json_object_is_refused(url: str, path: str, body: bytes, told: str):
    assert told in refused(httpx2.post(url + path, content=body, headers=JSON, timeout=PATIENCE))


def test_a_forgotten_content_type_is_told(url: str):
    assert "the header `content-type: application/json`" in refused(httpx2.post(f"{url}/score", data=KNOWN))


@pytest.mark.parametrize(
    "wrong", [0, True, None, {}, [[]], [1], [None], "a", [{"text": 1}], [{"text": "a", "steps": "a"}]]
)
def test_texts_of_another_type_are_refused(url: str, wrong: object):
    for path in ("/score", "/select", "/view"):
        assert "responses" in refused(httpx2.post(url + path, json={"prompt": "a", "responses": wrong}))
    if wrong not in (None, "a"):
        refused(httpx2.post(f"{url}/get_reward", json={"query": wrong}))
        refused(httpx2.post(f"{url}/pooling", json={"input": wrong}))


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/score", {"prompt": "\ud800", "responses": ["a"]}, "prompt: "),
        ("/score", {"messages": [{"role": "user", "content": "a\udc00"}], "responses": ["a"]}, "messages[0].content: "),
        ("/score", {"prompt": "a", "responses": ["a", "b\ud83d"]}, "responses[1]: "),
        ("/score", {"prompt": "a", "responses": [{"text": "a\ud83d"}]}, "responses[0].Response.text: "),
        ("/select", {"prompt": "a", "responses": ["a"], "answers": ["\ud83d"]}, "answers[0]: "),
        ("/get_reward", {"query": ["\udfff"]}, "query[0]: "),
        ("/pooling", {"input": "\udfff"}, "input: "),
        ("/classify", {"input": ["\udfff"]}, "input[0]: "),
    ],
)
def test_half_a_surrogate_pair_is_refused_where_it_stands(
    url: str, scorer: ImplicitPRM, path: str, body: object, where: str
):
    """Before the model has it: no tokenizer reads it, and all that were scored with it would fail."""
    with unimpressed(url, scorer):
        told = refused(httpx2.post(url + path, content=json.dumps(body).encode(), headers=JSON))
    assert where in told
    assert "is half of a surrogate pair; send the whole character" in told


def test_half_a_surrogate_pair_elsewhere_is_quoted_in_letters(url: str):
    told = {
        "reward": r"reward '\ud800'", "splitter": r"splitter '\ud800'", "aggregator": r"aggregator: no '\ud800'",
        "too_long": "too_long: ", "\ud800": "unable to parse raw data as a unicode string",
    }  # fmt: skip
    for name, expected in told.items():
        body = json.dumps({**KNOWN, name: "\ud800"}).encode()
        assert expected in refused(httpx2.post(f"{url}/score", content=body, headers=JSON))


def test_control_characters_are_scored_as_they_stand(url: str, scorer: ImplicitPRM):
    prompt, responses = "\0 \x1b[2J\u202e", ["\0", "\x07 b\r\n\x85\u2028c", "\ufeff\ufffd"]
    with Client(url) as client:
        found = client.score(prompt, responses)
    assert [one.steps for one in found] == [one.steps for one in scorer.score(prompt, responses)]
    assert [one.reward for one in found] == pytest.approx(
        [one.reward for one in scorer.score(prompt, responses)], abs=1e-5
    )


def test_a_prompt_that_fills_the_context_is_told_however_long_responses_are_taken(url: str):
    body = {"prompt": "a " * 500, "responses": ["a"]}
    assert "525 tokens with its prompt, but 128 are allowed" in refused(httpx2.post(f"{url}/score", json=body))
    cut = refused(httpx2.post(f"{url}/score", json={**body, "too_long": "truncate"}))
    assert cut == "response 0: is longer, with its prompt, than the model's context"
    left_out = httpx2.post(f"{url}/score", json={**body, "too_long": "exclude"}).json()["results"]
    assert left_out == [{"index": 0, "error": "is longer, with its prompt, than the model's context"}]


def test_ten_megabytes_are_refused_or_read_as_the_limit_says(url: str, url_of, scorer: ImplicitPRM):
    blank = b" " * 10_000_000 + json.dumps(KNOWN).encode()
    with unimpressed(url, scorer):
        assert "200,000 bytes" in refused(httpx2.post(f"{url}/score", content=blank, headers=JSON), 413)
    large = url_of(Held(), limits=Limits(responses=4, body_bytes=16 * 2**20, seconds=PATIENCE))
    assert httpx2.post(f"{large}/score", content=blank, headers=JSON, timeout=PATIENCE).status_code == 200
    body = {"prompt": "a", "responses": ["ab" * 5_000_000]}
    assert httpx2.post(f"{large}/score", json=body, timeout=PATIENCE).json()["results"][0]["score"] == 10_000_000
    told = refused(httpx2.post(f"{url}/score", json={**body, "responses": ["ab" * 90_000]}, timeout=PATIENCE))
    assert "are allowed" in told
    assert len(told) < 1000


def test_thousands_of_responses_are_refused_or_scored_in_order(url: str, url_of):
    texts = ["a" * (1 + n % 7) for n in range(5000)]
    assert "5000 responses; expected 4 or fewer" in refused(
        httpx2.post(f"{url}/score", json={"prompt": "?", "responses": texts}, timeout=PATIENCE)
    )
    many = url_of(Held(), limits=Limits(responses=5000, body_bytes=2**20, seconds=PATIENCE))
    found = httpx2.post(f"{many}/score", json={"prompt": "?", "responses": texts}, timeout=PATIENCE).json()["results"]
    assert [one["score"] for one in found] == [float(len(text)) for text in texts]


class NotFinite(Held):
    """Gives the response `nan` that, and `inf`; the others their length."""

    def score_rollouts(self, rollouts: Sequence[Any], *given: Any, **named: Any) -> Any:
        found, counts = super().score_rollouts(rollouts, *given, **named)
        odd = {"nan": float("nan"), "inf": float("inf")}
        return {
            index: Scores(score=odd.get(rollouts[index].response, one.score), n_tokens=1)
            for index, one in found.items()
        }, counts


@pytest.mark.parametrize("odd", ["nan", "inf"])
def test_a_score_that_is_not_finite_is_told_to_whoever_asked_for_it_alone(client_of, odd: str):
    scorer = NotFinite()
    client = client_of(scorer)
    scorer.go.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, "/score", json={"prompt": "?", "responses": ["first"]})
        assert scorer.entered.wait(PATIENCE)
        bodies = [{"prompt": "?", "responses": ["abc"]}, {"prompt": "?", "responses": ["a", odd]}]
        good, bad = [pool.submit(client.post, "/score", json=body) for body in bodies]
        wait_until(lambda: "freeprm_waiting_responses 4.0" in client.get("/metrics").text)
        scorer.go.set()
        assert [one["score"] for one in first.result(PATIENCE).json()["results"]] == [5.0]
        assert [one["score"] for one in good.result(PATIENCE).json()["results"]] == [3.0]
        told = refused(bad.result(PATIENCE), 422)
    assert len(scorer.batches) == 2  # the good one and the bad one were scored together
    assert told == "response 1: the model gives it scores that are not finite; leave it out"


@pytest.mark.parametrize("weighting", ["raw", "softmax", "standardised"])
def test_weights_that_overflow_are_refused(client_of, weighting: str):
    body = {"prompt": "?", "responses": ["a" * 9, "b"], "weighting": weighting, "weight_scale": 1.7e308}
    client = client_of(Held())
    for path in ("/select", "/view"):
        assert "weight_scale 1.7e+308: makes scores that are not finite" in refused(client.post(path, json=body))
    assert client.post("/select", json={**body, "weight_scale": 1e307}).status_code == 200
    for odd in (b"NaN", b"Infinity", b"1e999"):
        given = b'{"prompt": "?", "responses": ["a"], "weight_scale": ' + odd + b"}"
        assert "weight_scale" in refused(client.post("/select", content=given, headers=JSON))


@contextmanager
def half_sent(url: str, *, length: int = 1000) -> Iterator[socket.socket]:
    """A connection on which a request has begun."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        head = f"POST /score HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}"
        connection.sendall(head.encode() + b'\r\n\r\n{"prompt": ')
        yield connection


def test_a_body_that_stalls_ends_with_408_and_holds_nobody_up(url_of, scorer: ImplicitPRM):
    url = url_of(scorer, limits=Limits(responses=4, body_bytes=20_000, seconds=1.0))
    started = time.monotonic()
    with unimpressed(url, scorer), half_sent(url) as slow, half_sent(url) as slower:
        for connection in (slow, slower):
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started >= 1.0


def test_clients_that_go_away_hold_nobody_up(url_of, scorer: ImplicitPRM):
    url = url_of(scorer)
    with unimpressed(url, scorer):
        for _ in range(20):
            with half_sent(url):
                pass
    body = json.dumps(KNOWN).encode()
    held = Held()
    url = url_of(held)
    held.go.clear()
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as gone:
        head = f"POST /score HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        gone.sendall(head.encode() + b"\r\n\r\n" + body)
        assert held.entered.wait(PATIENCE)
    held.go.set()  # it is gone while its responses are scored
    with Client(url) as client:
        assert [one.score for one in client.rank("?", ["a", "abc"])] == [3.0, 1.0]


@pytest.mark.parametrize(
    "name", ["a\0b", "x" * 5000, "../../etc", "/etc", "..%2f..%2fetc", ".", "", "a/" * 2000, "\u202e"]
)
def test_no_name_of_a_run_leads_out_of_the_folder(url: str, name: str):
    for which in ({"run": name, "scorer": "passwd"}, {"run": "a", "scorer": name}):
        for path, more in {"/runs/problems": {}, "/runs/view": {"problem": name}}.items():
            assert "/runs lists them" in refused(httpx2.get(url + path, params={**which, **more}))


def test_a_link_out_of_the_folder_of_runs_is_not_followed(client_of, scorer: Scorer, tmp_path: Path):
    (tmp_path / "runs").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text(json.dumps({"stage": "score", "status": "complete"}))
    (outside / "secret.jsonl").write_text("{}")
    (tmp_path / "runs" / "link").symlink_to(outside)
    client = client_of(scorer, runs=tmp_path / "runs")
    assert client.get("/runs").json() == []
    refused(client.get("/runs/problems", params={"run": "link", "scorer": "secret"}))


@pytest.mark.parametrize(
    "given", ["secret", "bearer secret", "Bearer  secret", "Bearer secret ", "Basic c2VjcmV0", "Bearer \xff"]
)
def test_only_the_key_as_it_is_asked_for_opens(client_of, given: str):
    client = client_of(Held(), key="secret")
    answer = client.post(
        "/score", json={"prompt": "?", "responses": ["a"]}, headers=[(b"authorization", given.encode("latin-1"))]
    )
    assert "Authorization: Bearer KEY" in refused(answer, 401)


def test_requests_that_come_while_the_server_ends_are_answered_or_told(scorer: ImplicitPRM):
    """Never with a 500, and never with another's scores."""
    expected = [one.reward for one in scorer.score(KNOWN["prompt"], KNOWN["responses"])]
    answers: list[httpx2.Response] = []

    def ask(until: Callable[[], bool]) -> None:
        with httpx2.Client(timeout=PATIENCE) as client:
            while not until():
                try:
                    answers.append(client.post(f"{url}/score", json=KNOWN))
                except httpx2.TransportError:
                    return  # it listens no more

    ended = Event()
    with ThreadPoolExecutor(4) as pool:
        with listening(application(scorer)) as url:
            asked = [pool.submit(ask, ended.is_set) for _ in range(4)]
            wait_until(lambda: len(answers) > 8)
        ended.set()
        for one in asked:
            one.result(PATIENCE)
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert [one["reward"] for one in answer.json()["results"]] == pytest.approx(expected, abs=1e-5)
        else:
            refused(answer, 503)
