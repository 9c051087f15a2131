"""Recorded rollouts given again."""

from dataclasses import replace
from pathlib import Path

import pytest

from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.replay import ReplayEngine
from freeprm.errors import ConfigError, ModelError, RecordError
from freeprm.io.files import read_rows
from freeprm.io.plugins import load
from freeprm.io.rows import Row, write_rows
from freeprm.stages.sampling import sample
from freeprm.types import Problem

PARAMS = SamplingParams()
ROWS: list[Row] = [
    {"problem_id": "a", "prompt": "1+1?", "sample_idx": 1, "response": "3", "truncated": True, "n_prompt_tokens": 5},
    {"problem_id": "a", "prompt": "1+1?", "sample_idx": 0, "response": "2", "stop_reason": "stop", "token_ids": [4, 2],
     "token_logprobs": [-0.5, -1.5], "n_generated_tokens": 2},
    {"problem_id": "b", "prompt": [{"role": "user", "content": "2+2?"}], "sample_idx": 0, "response": "4",
     "truncated": True, "stop_reason": "context"},
    {"problem_id": "c", "prompt": "1+1?", "sample_idx": 0, "response": "two"},
]  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.jsonl"
    write_rows(path, ROWS)
    return path


def request(problem_id: str, *indices: int, prompt: object = "1+1?") -> Request:
    return Request(problem_id=problem_id, prompt=prompt, sample_idxs=indices)


def replay(record: Path, *requests: Request) -> list[Sampled]:
    return list(ReplayEngine(model=str(record)).sample(requests, params=PARAMS))


def test_what_was_recorded_is_given_again(record: Path):
    first, second = replay(record, request("a", 0, 1))
    assert first == Sampled(
        problem_id="a", sample_idx=0, text="2", stop_reason="stop", token_ids=(4, 2), n_generated_tokens=2,
        token_logprobs=(-0.5, -1.5),
    )  # fmt: skip
    assert second == Sampled(problem_id="a", sample_idx=1, text="3", stop_reason="length", n_prompt_tokens=5)
    (conversation,) = replay(record, request("b", 0, prompt=({"content": "2+2?", "role": "user"},)))
    assert (conversation.text, conversation.stop_reason, conversation.truncated) == ("4", "context", True)


def test_samples_that_are_done_are_not_given_again(record: Path):
    (only,) = replay(record, replace(request("a", 0, 1), done=frozenset({0})))
    assert only.sample_idx == 1


def test_a_problem_under_another_id_is_found_by_its_prompt(record: Path):
    (sampled,) = replay(record, request("new", 1))
    assert (sampled.problem_id, sampled.text) == ("new", "3")  # of the first problem with this prompt


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("a", (0, 1, 2), "1+1?"), "problem 'a': sample 2 is not recorded; .*2 samples of it, from 0 to 1"),
        (("a", (0,), "9?"), "problem 'a': .* has another prompt under this id"),
        (("z", (0,), "9?"), "problem 'z': .* has no rollouts of it"),
    ],
)
def test_what_is_not_recorded_is_named_before_anything_is_given(record: Path, asked: tuple, message: str):
    problem_id, indices, prompt = asked
    samples = ReplayEngine(model=str(record)).sample(
        [request("c", 0), request(problem_id, *indices, prompt=prompt)], params=PARAMS
    )
    with pytest.raises(ModelError, match=message):
        next(samples)


def test_a_record_with_other_names_or_none_at_all(tmp_path: Path):
    path = tmp_path / "theirs.jsonl"
    write_rows(path, [{"id": 7, "question": "1+1?", "completion": "2"}])
    columns = {"problem_id": "id", "prompt": "question", "response": "completion"}
    (sampled,) = ReplayEngine(model=str(path), columns=columns).sample([request("7", 0)], params=PARAMS)
    assert sampled.text == "2"
    with pytest.raises(RecordError, match="no such file"):
        replay(tmp_path / "absent.jsonl", request("a", 0))


def test_the_record_decides_the_run(record: Path):
    before = ReplayEngine(model=str(record)).identity()
    assert ReplayEngine(model=str(record)).identity() == before
    write_rows(record, ROWS[:2])
    assert ReplayEngine(model=str(record)).identity() != before
    assert ReplayEngine(model=str(record)).shape() is None


def test_a_run_of_samples_replays_into_the_same_rows(record: Path, tmp_path: Path):
    problems = [Problem(problem_id="a", prompt="1+1?", answer="2")]
    for source, out in ((record, tmp_path / "first"), (tmp_path / "first", tmp_path / "second")):
        sample(problems, model=str(source), engine="replay", out=out, n=2)
    first, second = ([row for _, row in read_rows(tmp_path / name)] for name in ("first", "second"))
    assert first == second
    assert [row["response"] for row in first] == ["2", "3"]
    assert [row.get("truncated", False) for row in first] == [False, True]


def test_the_engine_is_found_by_name():
    assert load("engines", "replay") is ReplayEngine


def test_it_does_not_go_on_from_a_beginning(record: Path):
    with pytest.raises(ConfigError, match="cannot go on from the beginning"):
        replay(record, replace(request("a", 0), prefix="2"))
