"""The benchmark of a real model, on a tiny one in its place."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import real
from benchmarks.real import MODEL, SOLUTIONS, Sizes, Solutions
from tiny import LLAMA3, language_model, rollouts, tokenizer

SIZES = Sizes(prompts=2, max_new_tokens=6, problems=2, rounds=1)
ROWS = {
    "real/sampling, generate a prompt at a time": 5, "real/sampling, generate all at once": None,
    "real/scoring, plain Hugging Face": 2, "real/training ce, plain Hugging Face": 3,
    "real/training dpo, TRL": 3, "real/memory of scoring, plain Hugging Face": None,
    "real/memory of training dpo, TRL": None,
}  # fmt: skip
COLUMNS = ("problem_id", "sample_idx", "prompt", "response", "correct")
FOUR, EIGHT = (True, False, True, False), (False, True) * 4


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    model = language_model()
    model.config.pad_token_id = model.generation_config.pad_token_id = 1
    model.save_pretrained(folder / MODEL)
    tokenizer(template=LLAMA3, pad="</s>").save_pretrained(folder / MODEL)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for task, labels in {"GSM8K": FOUR, "MATH": EIGHT}.items():
        rows = map(asdict, rollouts(6, labels=labels))
        write(folder / SOLUTIONS[task], [{name: row[name] for name in COLUMNS} for row in rows])
    write(folder / "gsm8k" / "test.jsonl", [{"question": f"{n} and 2?", "answer": f"#### {n + 2}"} for n in range(5)])
    return folder


def write(file: Path, rows) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def solutions(models: Path, data: Path, **given) -> Solutions:
    return Solutions(folder=models / MODEL, data=data, **given)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sampling_counts_what_both_sides_drew(dtype, models, data, well_formed):
    rows = [well_formed(row) for row in real._sampling(models / MODEL, data, SIZES, dtype)]
    ways = ["real/sampling, generate a prompt at a time", "real/sampling, generate all at once"]
    assert [row.name for row in rows] == [f"{way}: {MODEL}, GSM8K, P=2, N=8, up to 6 tokens, {dtype}" for way in ways]
    assert [row.target for row in rows] == [5, None]
    assert all(2 * 8 <= row.details[f"{side}_tokens"] <= 2 * 8 * 6 for row in rows for side in ("ours", "peer"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scoring_agrees_and_counts_every_prompt_with_its_response(dtype, models, data, well_formed):
    row = well_formed(real._scoring(solutions(models, data, task="MATH", problems=2, n=8, dtype=dtype), rounds=1))
    assert row.name == f"real/scoring, plain Hugging Face: {MODEL}, MATH, P=2, N=8, {dtype}"
    assert row.target == 2
    assert row.details["responses"] == 2 * 8
    assert row.details["unique_tokens"] < row.details["tokens"]


@pytest.mark.slow
def test_all_rows_are_measured(models, data, well_formed):
    pytest.importorskip("trl", minversion="1.16", reason="compares with TRL: pip install 'freeprm[bench]'")
    parts = (real.sampling_rows, real.scoring_rows, real.training_rows, real.memory_rows)
    rows = [well_formed(row) for part in parts for row in part(models / MODEL, data, SIZES)]
    assert {row.name.partition(":")[0]: row.target for row in rows} == ROWS


def test_a_pair_is_a_right_and_a_wrong_response(models, data):
    groups = solutions(models, data, task="MATH", problems=3, n=2).groups()
    assert [[rollout.correct for rollout in group.rollouts] for group in groups] == [[True, False]] * 3
    assert [rollout.sample_idx for rollout in groups[0].rollouts] == [1, 0]  # the first of either


def test_a_problem_with_too_few_responses_is_left_out(models, data):
    assert len(solutions(models, data, task="GSM8K", problems=9, n=4).groups()) == 6
    assert solutions(models, data, task="GSM8K", problems=9, n=8).groups() == []


def test_weights_are_counted_in_the_dtype_that_they_are_read_in(models, data):
    full, half = (
        solutions(models, data, task="GSM8K", problems=1, n=4, dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    assert full.weights_mib == pytest.approx(2 * half.weights_mib)
    assert full.model().num_parameters() * 4 / 2**20 == pytest.approx(full.weights_mib)


@pytest.mark.parametrize("absent", ["FREEPRM_TEST_MODELS", "FREEPRM_TEST_DATA"])
def test_without_model_or_data_its_rows_say_so(absent, models, data, monkeypatch):
    monkeypatch.setenv("FREEPRM_TEST_MODELS", str(models))
    monkeypatch.setenv("FREEPRM_TEST_DATA", str(data))
    monkeypatch.delenv(absent)
    rows = list(real.real(quick=True))
    assert {row.name.partition(":")[0]: row.target for row in rows} == ROWS
    assert all(row.ours is None and absent in row.missing for row in rows)
