"""Rollouts with scores, whatever the file is and wherever the scores stand."""

from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.formats._attaching import read_scored
from freeprm.io.files import read_rows, write_table
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import Row, write_rows

STEPS = [[0.1, 0.9], [0.8, 0.2]]


def row(index: int = 0, **columns: Any) -> Row:
    return {"problem_id": "p", "sample_idx": index, "prompt": "?", "response": "a\nb", **columns}


def write(folder: Path, *rows: Row, name: str = "rows.jsonl") -> Path:
    write_rows(folder / name, rows)
    return folder / name


def test_files_of_ours_are_read_as_they_always_were(tmp_path: Path):
    path = write(tmp_path, row(0, step_scores=[1.0], scorer="a"), row(0, step_scores=[2.0], scorer="b"), row(1))
    assert read_scored([path]) == read_rollouts([path])
    with pytest.raises(RecordError, match=r"prompt: no such column\..*Did you mean --map prompt=question\?"):
        read_scored([write(tmp_path, {"problem_id": "p", "question": "?", "response": "a"})])


@pytest.mark.parametrize("name", ["scatyf3_llama3b_10x4", "rajlm10_llama1b_1x4"])
def test_a_search_and_learn_file_needs_no_converting(name: str, real_data: Path):
    folder = real_data / "search_and_learn_bon"
    raw = read_scored([folder / f"{name}.raw.jsonl"]).rollouts
    ours = read_rollouts([folder / f"{name}.rollouts.jsonl"]).rollouts  # the same, made rows of ours by hand
    assert [(r.problem_id, r.sample_idx, r.response, r.step_scores, r.answer) for r in raw] == [
        (r.problem_id, r.sample_idx, r.response, r.step_scores, r.answer) for r in ours
    ]


def test_nested_lists_of_parquet_are_the_same_numbers(real_data: Path, tmp_path: Path):
    raw = real_data / "search_and_learn_bon" / "scatyf3_llama3b_10x4.raw.jsonl"
    write_table(tmp_path / "raw.parquet", [found for _, found in read_rows(raw)])
    assert read_scored([tmp_path / "raw.parquet"]).rollouts == read_scored([raw]).rollouts


def test_arrays_that_pandas_wrote_are_lists(tmp_path: Path):
    pandas, numpy = pytest.importorskip("pandas"), pytest.importorskip("numpy")
    frame = pandas.DataFrame([
        row(0, scores=numpy.array([0.5, 0.25], dtype=numpy.float32), logits=list(numpy.array(STEPS))),
        row(1, scores=numpy.array([1.0], dtype=numpy.float32), logits=list(numpy.array(STEPS[:1]))),
    ])  # fmt: skip
    frame.to_parquet(tmp_path / "rows.parquet")
    mapped = read_scored([tmp_path / "rows.parquet"], columns={"step_scores": "scores"}).rollouts
    assert [one.step_scores for one in mapped] == [(0.5, 0.25), (1.0,)]
    nested = read_scored([tmp_path / "rows.parquet"], options={"column": "logits", "good": 1}).rollouts
    assert [one.step_scores for one in nested] == [(0.9, 0.2), (0.9,)]


def test_processbench_rows_get_scores_from_a_file_of_answers(tmp_path: Path):
    entry = {
        "id": "x-0",
        "generator": "g",
        "problem": "?",
        "steps": ["a", "b"],
        "final_answer_correct": False,
        "label": 1,
    }
    answer = {"custom_id": "x-0", "model": "prm", "data": [{"index": 0, "data": STEPS}]}
    write_table(tmp_path / "bench.json", [entry])
    (made,) = read_scored(
        [tmp_path / "bench.json"], scores=[write(tmp_path, answer)], options={"good": 1, "id": "{problem_id}"}
    ).rollouts
    assert (made.step_scores, made.scorer, made.extra["first_error"]) == ((0.9, 0.2), "prm", 1)


def test_a_response_that_has_scores_keeps_them_beside_the_others(tmp_path: Path):
    path = write(
        tmp_path, row(0, step_scores=[1.0, 2.0], scorer="ours", out=STEPS), row(1, out=None), row(2, out=STEPS)
    )
    made = read_scored([path], options={"column": "out", "good": 1}).rollouts
    assert sorted((one.sample_idx, one.scorer, one.step_scores) for one in made if one.step_scores) == [
        (0, "ours", (1.0, 2.0)), (0, "out", (0.9, 0.2)), (2, "out", (0.9, 0.2)),
    ]  # fmt: skip
    assert [one.sample_idx for one in made if not one.step_scores] == [1]
    with pytest.raises(DataError, match="sample 0, scorer 'ours': has scores of this scorer twice; tell them apart by"):
        read_scored([path], options={"column": "out", "good": 1, "scorer": "ours"})


def test_several_files_of_answers_are_several_scorers(tmp_path: Path):
    path = write(tmp_path, row(0))
    files = [
        write(tmp_path, {"model": model, "data": [{"index": 0, "data": STEPS}]}, name=f"{model}.jsonl")
        for model in "ab"
    ]
    made = read_scored([path], scores=files, options={"good": 1})
    assert [one.scorer for one in made.rollouts] == ["a", "b"]
    assert (made.skipped["scored by a"], made.skipped["scored by b"]) == (1, 1)


def test_options_without_outputs_to_read_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="score options are for outputs in a column"):
        read_scored([write(tmp_path, row(0))], options={"good": 1})


def test_inputs_of_several_formats_are_read_in_their_order_and_so_are_answers_to_them(tmp_path: Path):
    entry = {"id": "x-0", "generator": "g", "problem": "?", "steps": ["a"], "final_answer_correct": True, "label": -1}
    paths = [
        write(tmp_path, row(0)), write(tmp_path, entry, name="bench.jsonl"), write(tmp_path, row(1), name="more.jsonl"),
    ]  # fmt: skip
    bodies = [{"model": "m", "data": [{"index": 0, "data": [[share]]}]} for share in (0.25, 0.5, 0.75)]
    answers = write(tmp_path, *bodies, name="answers.jsonl")
    made = read_scored(paths, scores=[answers])
    assert [(one.problem_id, one.sample_idx, one.step_scores) for one in made.rollouts] == [
        ("p", 0, (0.25,)), ("x-0", 0, (0.5,)), ("p", 1, (0.75,)),
    ]  # fmt: skip


def test_answers_are_in_the_order_in_which_responses_first_stand(tmp_path: Path):
    rows = [row(index, step_scores=[0.0], scorer=name) for name in ("a", "b") for index in (2, 0, 1)]
    bodies = [{"model": "m", "data": [{"index": 0, "data": [[0.75 + index / 10]]}]} for index in (2, 0, 1)]
    answers = write(tmp_path, *bodies, name="answers.jsonl")
    made = read_scored([write(tmp_path, *rows)], scores=[answers]).rollouts
    found = {one.sample_idx: one.step_scores for one in made if one.scorer == "m"}
    assert found == {0: (0.75,), 1: (0.85,), 2: (0.95,)}
