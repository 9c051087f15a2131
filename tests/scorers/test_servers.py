"""Scoring through servers, against stand-ins that a real tiny model answers, in the shapes of vLLM and of SGLang.

The shapes were read off vLLM 0.33.0 (`CompletionResponseChoice.prompt_logprobs`, `ModelCard`, `clamp_prompt_logprobs`)
and SGLang 0.5.23 (`add_logprob_to_meta_info`, `_process_input_token_logprobs`, `ModelCard`). Where their packages are
unpacked, at FREEPRM_VLLM_SOURCE and FREEPRM_SGLANG_SOURCE, the fields are held to the source.
"""

import ast
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from freeprm.engines.openai import server as server_module
from freeprm.errors import ConfigError, DataError, ModelError, NonFiniteError, RewardMismatchError
from freeprm.io.runs import read_manifest
from freeprm.models.reference_logprobs import COLUMNS, key_of, noted_of
from freeprm.scorers._log_ratio import LogRatio
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import ScorerSource, Servers, load_scorer
from freeprm.stages import scoring
from freeprm.stages.scoring import score
from openai_stub import Answer, Serve, Stub, stubs
from rounding import tolerance

SENT_AGAIN = "ignore:.*sent again"
ROLLOUTS = tiny.rollouts(3)
MAX_MODEL_LEN = 200
VOCABULARY = 300
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(server_module, "_FIRST_WAIT", 0.001)
    with stubs() as start:
        yield start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the reward model `prm`, of seed 1, and its reference `ref`, of seed 0."""
    made = tmp_path_factory.mktemp("models")
    tiny.save_pair(made, template=tiny.LLAMA3)
    return made


@cache
def model(seed: int) -> Any:
    return tiny.language_model(seed=seed)


_ONE_AT_A_TIME = threading.Lock()


@torch.inference_mode()
def logprobs(seed: int, ids: list[int]) -> list[float]:
    """log p of each token but the first, by a plain pass of the whole model."""
    with _ONE_AT_A_TIME:
        logits = model(seed)(input_ids=torch.tensor([ids])).logits[0]
    found = logits.float().log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    return found.tolist()


def cards(owner: str, *names: str, parent: str | None = None) -> Answer:
    return 200, {
        "object": "list",
        "data": [
            {
                "id": name, "object": "model", "created": 1, "owned_by": owner, "root": f"/models/{name}",
                "parent": parent if index else None, "max_model_len": None if index and parent else MAX_MODEL_LEN,
            }
            for index, name in enumerate(names)
        ],
    }  # fmt: skip


def vllm_answer(seed: int, body: dict[str, Any]) -> dict[str, Any]:
    """What /v1/completions of vLLM 0.33.0 answers to token ids with `prompt_logprobs: 0`."""
    ids = body["prompt"]
    assert body["prompt_logprobs"] == 0
    assert body["max_tokens"] == 1
    assert len(ids) + 1 <= MAX_MODEL_LEN
    entries = [
        {str(token): {"logprob": value, "rank": 1, "decoded_token": "x"}}
        for token, value in zip(ids[1:], logprobs(seed, ids), strict=True)
    ]
    return {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"],
        "choices": [
            {
                "index": 0, "text": "a", "logprobs": None, "finish_reason": "length", "stop_reason": None,
                "token_ids": [7], "prompt_logprobs": [None, *entries], "prompt_token_ids": ids,
                "routed_experts": None,
            }
        ],
        "service_tier": None, "system_fingerprint": None,
        "usage": {"prompt_tokens": len(ids), "total_tokens": len(ids) + 1, "completion_tokens": 1},
        "kv_transfer_params": None,
    }  # fmt: skip


def sglang_answer(seed: int, body: dict[str, Any]) -> dict[str, Any]:
    """What /generate of SGLang 0.5.23 answers with `return_logprob`, from `logprob_start_len` on."""
    ids, start = body["input_ids"], body["logprob_start_len"]
    assert body["return_logprob"] is True
    assert body["sampling_params"]["max_new_tokens"] == 0
    assert len(ids) < MAX_MODEL_LEN
    values = [None, *logprobs(seed, ids)[start:]]
    shown = [token if token < VOCABULARY - 1 else 0 for token in ids[start:]]
    return {
        "text": "", "output_ids": [],
        "meta_info": {
            "id": "1", "finish_reason": {"type": "length", "length": 0}, "prompt_tokens": len(ids),
            "weight_version": "default", "total_retractions": 0,
            "input_token_logprobs": [[value, token, None] for value, token in zip(values, shown, strict=True)],
            "output_token_logprobs": [], "output_token_logprobs_length": 0, "completion_tokens": 0,
            "cached_tokens": 0, "e2e_latency": 0.01,
        },
    }  # fmt: skip


ANSWERS = {"vllm": ("/v1/completions", vllm_answer), "sglang": ("/generate", sglang_answer)}


def start(serve: Serve, api: str, seed: int, *, change: Change = lambda body: None, name: str = "m") -> Stub:
    """A server with one model, whose right answers may be changed."""
    path, answer = ANSWERS[api]

    def reply(asked: str, body: dict[str, Any], number: int) -> Answer:
        assert asked == path
        made = answer(seed, body)
        change(made)
        return 200, made

    return serve(reply, models=cards(api, name))


def source(folder: Path, servers: Servers, **more: Any) -> ScorerSource:
    return ScorerSource(source=str(folder / "prm"), servers=servers, **more)


def served(folder: Path, serve: Serve, api: str = "vllm", *, change: Change = lambda body: None) -> LogRatio:
    """The reward model on two servers; the policy's answers may be changed."""
    policy, reference = start(serve, api, 1, change=change), start(serve, api, 0)
    loaded = source(folder, Servers(policy_url=policy.url, reference_url=reference.url)).load()
    assert isinstance(loaded, LogRatio)
    return loaded


def rows(folder: Path, name: str = "with-reference") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("api", ANSWERS)
def test_servers_give_the_log_probabilities_of_the_models_here_up_to_rounding(folder, serve, api):
    here = load_scorer(folder / "prm")
    assert isinstance(here, LogRatio)
    ours, counts = served(folder, serve, api).logprobs(ROLLOUTS)
    theirs, _ = here.logprobs(ROLLOUTS)
    assert not counts
    assert ours.keys() == theirs.keys()
    for index, item in ours.items():
        other = theirs[index]
        assert item.encoded.ids.tolist() == other.encoded.ids.tolist()
        for found, expected in ((item.policy, other.policy), (item.ref, other.ref)):
            assert found == pytest.approx(expected, abs=tolerance(torch.tensor(expected)), rel=0)
        assert abs(item.policy - item.ref).max() > 0.01  # two models, not one twice


@pytest.mark.parametrize("api", ANSWERS)
def test_the_stage_writes_by_servers_what_it_writes_by_the_models_here(folder, serve, api, tmp_path):
    rewards = ["with-reference", "without-reference", "reference-only"]
    policy, reference = start(serve, api, 1), start(serve, api, 0)
    ours = score(
        ROLLOUTS, prm=folder / "prm", policy_url=policy.url, reference_url=reference.url, out=tmp_path / "served",
        rewards=rewards, tokens=True,
    )  # fmt: skip
    theirs = score(ROLLOUTS, prm=folder / "prm", out=tmp_path / "here", rewards=rewards, tokens=True)
    assert ours.counts == theirs.counts == {"scored": 12}
    for reward in rewards:
        for row, other in zip(rows(ours.folder, reward), rows(theirs.folder, reward), strict=True):
            numbers = ("step_scores", "token_rewards", "reward")
            assert {k: v for k, v in row.items() if k not in numbers} == {
                k: v for k, v in other.items() if k not in numbers
            }
            for name in numbers:
                # A sum of T rewards, each beta times a difference of two log-probabilities.
                bound = 2 * 0.5 * tolerance([10.0]) * len(row["token_rewards"])
                assert row[name] == pytest.approx(other[name], abs=bound, rel=0), name
    assert ours.cost.scored_tokens == sum(len(body.get("prompt") or body["input_ids"]) for body in policy.bodies) * 2
    assert read_manifest(ours.folder)["settings"]["served"] is True


def test_equal_responses_are_sent_once(folder, serve):
    policy = start(serve, "vllm", 1)
    scorer = source(folder, Servers(policy_url=policy.url), load_reference=False).load()
    twice = [ROLLOUTS[0], ROLLOUTS[1], replace(ROLLOUTS[0], sample_idx=9)]
    found, _ = scorer.score_rollouts(twice)
    assert len(policy.bodies) == 2
    assert found[0] == found[2]


def test_as_many_requests_as_allowed_are_under_way(folder, serve):
    gate = threading.Barrier(3, timeout=30)

    def wait(made: dict[str, Any]) -> None:
        gate.wait()

    policy = start(serve, "vllm", 1, change=wait)
    scorer = source(folder, Servers(policy_url=policy.url, concurrency=3), load_reference=False).load()
    scorer.score_rollouts(ROLLOUTS[:6])
    assert policy.most_at_once == 3


@pytest.mark.filterwarnings(SENT_AGAIN)
@pytest.mark.parametrize("status", [429, 503])
def test_what_fails_in_passing_is_sent_again(folder, serve, status):
    def reply(path: str, body: dict[str, Any], number: int) -> Answer:
        return (status, {"error": {"message": "busy"}}) if number < 3 else (200, vllm_answer(1, body))

    stub = serve(reply, models=cards("vllm", "m"))
    scorer = source(folder, Servers(policy_url=stub.url), load_reference=False).load()
    found, _ = scorer.score_rollouts(ROLLOUTS[:4])
    assert len(found) == 4
    assert len(stub.bodies) == 7


@pytest.mark.filterwarnings(SENT_AGAIN)
def test_a_server_lost_on_the_way_is_told_and_the_same_call_goes_on(folder, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 4)
    reference = start(serve, "vllm", 0)

    def fails(path: str, body: dict[str, Any], number: int) -> Answer:
        return (200, vllm_answer(1, body)) if number < 6 else (500, {"error": {"message": "out of memory"}})

    lost = serve(fails, models=cards("vllm", "m"))
    more = {"reference_url": reference.url, "out": tmp_path / "scores", "server_options": {"max_retries": 1}}
    told = r"500 Internal Server Error: out of memory, after 2 attempts for problem 'p1', sample \d\. What was scored"
    with pytest.raises(ModelError, match=told):
        score(ROLLOUTS, prm=folder / "prm", policy_url=lost.url, **more)
    back = start(serve, "vllm", 1)
    made = score(ROLLOUTS, prm=folder / "prm", policy_url=back.url, **more)
    assert made.counts == {"scored": 12, "resumed": 4}
    assert len(back.bodies) == 8
    assert [row["sample_idx"] for row in rows(made.folder)] == [rollout.sample_idx for rollout in ROLLOUTS]


def cut(made: dict[str, Any]) -> None:
    del made["choices"][0]["prompt_logprobs"][-1]


def without_first(made: dict[str, Any]) -> None:
    del made["choices"][0]["prompt_logprobs"][0]


def first_predicted(made: dict[str, Any]) -> None:
    found = made["choices"][0]["prompt_logprobs"]
    found[0] = found[1]


def last_is(value: Any) -> Change:
    def change(made: dict[str, Any]) -> None:
        last = made["choices"][0]["prompt_logprobs"][-1]
        last[next(iter(last))]["logprob"] = value

    return change


def other_token(made: dict[str, Any]) -> None:
    found = made["choices"][0]["prompt_logprobs"]
    found[-1] = {"299": next(iter(found[-1].values()))}


def another_prompt(made: dict[str, Any]) -> None:
    made["choices"][0]["prompt_token_ids"] = [5, *made["choices"][0]["prompt_token_ids"][1:]]


def none_at_all(made: dict[str, Any]) -> None:
    made["choices"][0]["prompt_logprobs"] = None


def null_inside(made: dict[str, Any]) -> None:
    made["choices"][0]["prompt_logprobs"][-1] = None


WRONG = {
    "one token fewer": (cut, ModelError, r"log-probabilities of \d+ tokens, but \d+ were sent"),
    "without the first token": (without_first, ModelError, "does not answer with log-probabilities"),
    "the first token predicted": (first_predicted, ModelError, "first token has a log-probability"),
    "NaN": (last_is(float("nan")), NonFiniteError, "gives nan as the log-probability of token"),
    "minus infinity": (last_is(float("-inf")), NonFiniteError, "gives -inf as the log-probability"),
    "minus infinity, clamped": (last_is(-9999.0), NonFiniteError, "gives -inf as the log-probability"),
    "null": (last_is(None), NonFiniteError, "gives None as the log-probability"),
    "a logit": (last_is(3.5), ModelError, "gives 3.5 as the log-probability .* above 0"),
    "another token": (other_token, ModelError, r"of token 299 at place \d+ of the response, where \d+ was sent"),
    "another prompt": (another_prompt, ModelError, "the prompt that it read is another one"),
    "none at all": (none_at_all, ModelError, "does not answer with log-probabilities of what it was sent"),
    "null inside": (null_inside, ModelError, "does not answer with log-probabilities of what it was sent"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_log_probability_of_what_was_sent_is_refused_and_names_the_response(folder, serve, what):
    change, error, words = WRONG[what]
    with pytest.raises(error, match=rf"problem 'p0', sample 0: http://127.*{words}"):
        served(folder, serve, change=change).score_rollouts(ROLLOUTS[:1])


def edited(edit: Callable[[list[list[Any]]], Any]) -> Change:
    def change(made: dict[str, Any]) -> None:
        edit(made["meta_info"]["input_token_logprobs"])

    return change


WRONG_SGLANG = {
    "one token fewer": (edited(list.pop), ModelError, r"of \d+ tokens, but \d+ were sent"),
    "a prompt cut short": (lambda made: made["meta_info"].update(prompt_tokens=3), ModelError, "of 3 tokens, but"),
    "NaN, as null": (edited(lambda found: found[-1].__setitem__(0, None)), NonFiniteError, "gives None"),
    "another token": (edited(lambda found: found[-1].__setitem__(1, 5)), ModelError, "of token 5 at place"),
    "token 0 for another": (edited(lambda found: found[-1].__setitem__(1, 0)), ModelError, "of token 0 at place"),
    "the first one predicted": (edited(lambda found: found[0].__setitem__(0, -1.0)), ModelError, "not asked for"),
    "no log-probabilities": (lambda made: made["meta_info"].pop("input_token_logprobs"), ModelError, "KeyError"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_SGLANG)
def test_of_sglang_too(folder, serve, what):
    change, error, words = WRONG_SGLANG[what]
    with pytest.raises(error, match=rf"problem 'p0', sample 0: http://127.*{words}"):
        served(folder, serve, "sglang", change=change).score_rollouts(ROLLOUTS[:1])


def test_the_last_token_of_the_vocabulary_is_not_mistaken_by_sglang(folder, serve):
    """SGLang says 0 in its place."""
    scorer = served(folder, serve, "sglang")
    [item] = scorer.logprobs(ROLLOUTS[:1])[0].values()
    ids = item.encoded.ids.copy()
    ids[-2] = VOCABULARY - 1
    odd = replace(item.encoded, ids=ids)
    score_these = scorer._policy.reading("policy", lambda *batch: None, usage=Usage(), token_budget=None)
    [found] = score_these([odd])
    assert found.tolist() == pytest.approx(logprobs(1, ids.tolist())[odd.n_prompt - 1 :], abs=1e-4)


def test_the_server_s_context_decides_and_leaves_room_for_the_token_that_is_drawn(folder, serve):
    short = cards("vllm", "m")
    whole = served(folder, serve).logprobs(ROLLOUTS)[0]
    longest = max(len(item.encoded.ids) for item in whole.values())
    short[1]["data"][0]["max_model_len"] = longest
    policy = serve(lambda path, body, number: (200, vllm_answer(1, body)), models=short)
    reference = start(serve, "vllm", 0)
    scorer = source(folder, Servers(policy_url=policy.url, reference_url=reference.url)).load()
    found, counts = scorer.score_rollouts(ROLLOUTS)
    n_longest = sum(len(item.encoded.ids) == longest for item in whole.values())
    assert counts == {"excluded: longer than the context": n_longest}
    assert len(found) == len(ROLLOUTS) - n_longest
    assert all(len(body["prompt"]) < longest for body in policy.bodies)


def test_a_request_that_the_server_refuses_names_the_response_and_gives_its_words(folder, serve):
    words = {"error": {"message": "prompt (length 90) is longer than the maximum model length of 80"}}
    stub = serve(lambda path, body, number: (400, words), models=cards("vllm", "m"))
    scorer = source(folder, Servers(policy_url=stub.url), load_reference=False).load()
    with pytest.raises(ModelError, match=r"problem 'p0', sample 0: .* refuses it \(400: prompt \(length 90\)"):
        scorer.score_rollouts(ROLLOUTS[:1])


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "wants a key, and there is none in the environment variable OPENAI_API_KEY"), (404, "no model 'm'")],
)
def test_a_refusal_of_all_requests_says_what_to_change(folder, serve, monkeypatch, status, words):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    stub = serve(lambda path, body, number: (status, {"error": {"message": "no"}}), models=cards("vllm", "m"))
    scorer = source(folder, Servers(policy_url=stub.url), load_reference=False).load()
    with pytest.raises(ModelError, match=words):
        scorer.score_rollouts(ROLLOUTS[:1])


@pytest.mark.parametrize("api", ANSWERS)
def test_a_model_and_its_adapter_may_be_on_one_server(folder, serve, api):
    _, answer = ANSWERS[api]

    def reply(asked: str, body: dict[str, Any], number: int) -> Answer:
        name = body.get("model") or body.get("lora_path") or "base"
        return 200, answer({"base": 0, "tuned": 1}[name], body)

    stub = serve(reply, models=cards(api, "base", "tuned", parent="base"))
    servers = Servers(policy_url=stub.url, reference_url=stub.url, policy_name="tuned", reference_name="base")
    found, _ = source(folder, servers).load().score_rollouts(ROLLOUTS[:2])
    expected, _ = served(folder, serve, api).score_rollouts(ROLLOUTS[:2])
    assert found == expected


def test_the_wrong_server_is_told_before_anything_is_sent(folder, serve):
    def none(path: str, body: dict[str, Any], number: int) -> Answer:
        raise AssertionError("nothing is to be sent")

    two = serve(none, models=cards("vllm", "a", "b"))
    with pytest.raises(ConfigError, match=r"which model is the policy.*It has a, b.*--server-option policy_name=NAME"):
        source(folder, Servers(policy_url=two.url), load_reference=False).load()
    with pytest.raises(ModelError, match=r"no model 'c'\. It has a, b"):
        source(folder, Servers(policy_url=two.url, policy_name="c"), load_reference=False).load()
    other = serve(none, models=cards("someone", "m"))
    with pytest.raises(ConfigError, match="says that it is 'someone'; expected one of vllm, sglang"):
        source(folder, Servers(policy_url=other.url), load_reference=False).load()
    with pytest.raises(ModelError, match=r"no server answers there .*--policy-url=http://HOST:PORT/v1"):
        source(folder, Servers(policy_url="http://127.0.0.1:9/v1"), load_reference=False).load()
    secret = Servers(policy_url=other.url.replace("://", "://user:word@"))
    with pytest.raises(ConfigError, match="says that it is") as raised:
        source(folder, secret, load_reference=False).load()
    assert "word" not in str(raised.value)
    with pytest.raises(ConfigError, match="--policy-url: is 'localhost'"):
        source(folder, Servers(policy_url="localhost"), load_reference=False).load()


def test_the_same_model_twice_is_refused():
    with pytest.raises(ConfigError, match="whose log-ratio would be 0 everywhere"):
        Servers(policy_url="http://a/v1", reference_url="http://a/v1")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy_url": None}, "--reference-url: is for scoring by servers"),
        ({"reference_url": None}, "--reference-url: is missing; give the server of the reference"),
        ({"rewards": ["without-reference"]}, "no reward asked for needs a reference"),
        ({"device": "cpu"}, "device: is for models that are loaded here"),
        ({"cache": "x"}, "cache: is for models that are loaded here"),
        ({"reference": "solver:base"}, "reference: is for models that are loaded here"),
        ({"token_budget": 9}, "--token-budget: is for models that are loaded here"),
        ({"max_memory": "9GiB"}, "--max-memory: is for models that are loaded here"),
        ({"server_options": {"concurency": 3}}, "concurency: no such setting. Did you mean 'concurrency'"),
        ({"server_options": {"concurrency": 0}}, "concurrency: is 0; expected 1 or more"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(folder, tmp_path, settings, words):
    given = {"policy_url": "http://127.0.0.1:9/v1", "reference_url": "http://127.0.0.1:10/v1", **settings}
    with pytest.raises(ConfigError, match=words):
        score(ROLLOUTS, prm=folder / "prm", out=tmp_path / "out", **given)


def test_beta_and_template_are_checked_as_for_models_here(folder, serve, tmp_path):
    policy = start(serve, "vllm", 1)
    servers = Servers(policy_url=policy.url)
    with pytest.raises(RewardMismatchError, match=r"was trained with beta 0.5, not 2"):
        source(folder, servers, load_reference=False, beta=2.0).load()
    other = tmp_path / "prm"
    other.mkdir()
    for file in (folder / "prm").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tiny.tokenizer(template=None).save_pretrained(other)
    (other / "chat_template.jinja").unlink()
    with pytest.raises(RewardMismatchError, match="the chat template is not the one"):
        ScorerSource(source=str(other), servers=servers, load_reference=False).load()


def test_no_weights_are_needed_here(folder, serve, tmp_path):
    light = tmp_path / "prm"
    light.mkdir()
    for file in (folder / "prm").iterdir():
        if file.suffix != ".safetensors":
            (light / file.name).write_bytes(file.read_bytes())
    policy, reference = start(serve, "vllm", 1), start(serve, "vllm", 0)
    made = score(
        ROLLOUTS, prm=light, policy_url=policy.url, reference_url=reference.url, out=tmp_path / "scores"
    )  # fmt: skip
    assert made.counts == {"scored": 12}


def test_an_untrained_model_is_its_own_reference_on_one_server(folder, serve, tmp_path):
    policy = start(serve, "vllm", 0)
    ours = score(ROLLOUTS, untrained=str(folder / "ref"), policy_url=policy.url, out=tmp_path / "served")
    theirs = score(ROLLOUTS, untrained=str(folder / "ref"), out=tmp_path / "here")
    for row, other in zip(rows(ours.folder, "reference-only"), rows(theirs.folder, "reference-only"), strict=True):
        assert row["reward"] == pytest.approx(other["reward"], abs=1e-3, rel=0)
    assert len(policy.bodies) == len(ROLLOUTS)


def with_logprobs(folder: Path, seed: int) -> list[Any]:
    """Rollouts that bring log-probabilities of the reference, or of another model in its name."""
    here = load_scorer(folder / "prm")
    assert isinstance(here, LogRatio)
    key = key_of(folder / "ref", here.tokenizer, dtype="float32")
    made = []
    for index, item in here.logprobs(ROLLOUTS)[0].items():
        ids, n_prompt = item.encoded.ids.tolist(), item.encoded.n_prompt
        values = (ids[n_prompt:], logprobs(seed, ids)[n_prompt - 1 :], noted_of(key, ids[:n_prompt]))
        made.append(replace(ROLLOUTS[index], extra=dict(zip(COLUMNS, values, strict=True))))
    return made


def test_log_probabilities_from_sampling_are_taken_where_the_precision_is_given(folder, serve, tmp_path):
    policy, reference = start(serve, "vllm", 1), start(serve, "vllm", 0)
    more = {"policy_url": policy.url, "reference_url": reference.url}
    unknown = score(with_logprobs(folder, 0), prm=folder / "prm", out=tmp_path / "unknown", **more)
    assert unknown.counts == {"scored": 12}
    n_sent = len(reference.bodies)
    known = score(with_logprobs(folder, 0), prm=folder / "prm", out=tmp_path / "known", dtype="float32", **more)
    assert known.counts == {"scored": 12, "reference taken from sampling": 12}
    assert len(reference.bodies) - n_sent <= 12  # of the check


def test_a_server_that_is_not_the_reference_is_found_out_by_them(folder, serve):
    policy, other = start(serve, "vllm", 1), start(serve, "vllm", 2)
    servers = Servers(policy_url=policy.url, reference_url=other.url)
    options = replace(ScorerSource(source="").options, dtype="float32")
    scorer = source(folder, servers, options=options).load()
    with pytest.raises(DataError, match="noted at sampling differ from the reference's own"):
        scorer.score_rollouts(with_logprobs(folder, 0))


def test_the_address_is_no_part_of_a_run(folder, serve, tmp_path):
    out = tmp_path / "scores"
    for _ in range(2):
        policy = start(serve, "vllm", 1)
        made = score(
            ROLLOUTS, prm=folder / "prm", policy_url=policy.url.removesuffix("/v1"), rewards=["without-reference"],
            out=out,
        )  # fmt: skip
        assert made.counts == {"scored": 12}
    assert not policy.bodies


def source_at(variable: str) -> Path:
    given = os.environ.get(variable)
    if not given:
        pytest.skip(f"set {variable} to the unpacked package")
    return Path(given)


def fields_in(file: Path, *kinds: str) -> set[str]:
    """Annotated fields of classes, as their source has them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.target.id
        for kind in ast.walk(tree) if isinstance(kind, ast.ClassDef) and kind.name in kinds
        for node in kind.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }  # fmt: skip


def test_what_vllm_is_sent_and_what_is_read_of_it_is_in_its_source(folder, serve):
    entrypoints = source_at("FREEPRM_VLLM_SOURCE") / "entrypoints"
    policy = start(serve, "vllm", 1)
    source(folder, Servers(policy_url=policy.url), load_reference=False).load().score_rollouts(ROLLOUTS[:1])
    completion = entrypoints / "openai" / "completion" / "protocol.py"
    assert set(policy.bodies[0]) <= fields_in(completion, "CompletionRequest")
    answer = vllm_answer(1, policy.bodies[0])
    assert set(answer) <= fields_in(completion, "CompletionResponse")
    assert set(answer["choices"][0]) <= fields_in(completion, "CompletionResponseChoice")
    entry = next(iter(answer["choices"][0]["prompt_logprobs"][1].values()))
    assert set(entry) == fields_in(entrypoints.parent / "logprobs.py", "Logprob")
    card = fields_in(entrypoints / "serve" / "engine" / "protocol.py", "ModelCard")
    assert set(policy.models[1]["data"][0]) <= card
    assert 'owned_by: str = "vllm"' in (entrypoints / "serve" / "engine" / "protocol.py").read_text(encoding="utf-8")
    clamp = (entrypoints / "generate" / "base" / "serving.py").read_text(encoding="utf-8")
    assert "logprob_values.logprob = -9999.0" in clamp


def test_what_sglang_is_sent_and_what_is_read_of_it_is_in_its_source(folder, serve):
    srt = source_at("FREEPRM_SGLANG_SOURCE") / "srt"
    stub = serve(
        lambda path, body, number: (200, sglang_answer(1, body)),
        models=cards("sglang", "base", "tuned", parent="base"),
    )  # fmt: skip
    servers = Servers(policy_url=stub.url, policy_name="tuned")
    source(folder, servers, load_reference=False).load().score_rollouts(ROLLOUTS[:1])
    assert set(stub.bodies[0]) <= fields_in(srt / "managers" / "io_struct.py", "GenerateReqInput")
    sampling = fields_in(srt / "sampling" / "sampling_params.py", "SamplingParams")
    assert set(stub.bodies[0]["sampling_params"]) <= sampling
    manager = (srt / "managers" / "tokenizer_manager.py").read_text(encoding="utf-8")
    assert '"input_token_logprobs"] = state.input_token_logprobs' in manager
    values = (srt / "managers" / "scheduler_components" / "logprob_result_processor.py").read_text(encoding="utf-8")
    assert "input_token_logprobs_val = [None] + input_token_logprobs[:-1]" in values
    assert "x if x < self.model_config.vocab_size - 1 else 0" in values
    assert 'owned_by: str = "sglang"' in (srt / "entrypoints" / "openai" / "protocol.py").read_text(encoding="utf-8")
