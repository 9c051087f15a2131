"""Grading: labels kept or made, reasons for those not known, exact step truth, counts, and resumption."""

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError, RecordError, RunFolderError
from freeprm.io.jsonl import write_rows
from freeprm.io.runs import read_manifest, read_metrics
from freeprm.stages.grading import grade
from freeprm.world.problems import generate
from freeprm.world.solutions import answer, write
from freeprm.world.students import draw_student, solve_as

ROWS: list[dict[str, Any]] = [
    {"problem_id": "a", "sample_idx": 0, "prompt": "6 * 7?", "response": "\\boxed{42}", "answer": "42", "level": 3},
    {"problem_id": "a", "sample_idx": 1, "prompt": "6 * 7?", "response": "The answer is 41.", "answer": "42"},
    {"problem_id": "a", "sample_idx": 2, "prompt": "6 * 7?", "response": "Hm", "answer": "42"},
    {"problem_id": "b", "sample_idx": 0, "prompt": "7 * 7?", "response": "A: 49"},
    {"problem_id": "c", "sample_idx": 0, "prompt": "8 * 7?", "response": "A: 5", "answer": "56", "correct": True},
]


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rollouts.jsonl", ROWS)
    return tmp_path / "rollouts.jsonl"


def graded(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]


def test_grade_labels_each_response_or_says_why_not(rollouts: Path, tmp_path: Path) -> None:
    result = grade([rollouts], out=tmp_path / "out")
    rows = graded(result.folder)
    assert [row.get("pred") for row in rows] == ["42", "41", None, "49", "5"]
    assert [row.get("correct") for row in rows] == [True, False, None, None, True]  # the last label is kept
    assert [row.get("grade_reason") for row in rows] == [None, None, "no answer found", "no gold answer", None]
    assert rows[0] == {**ROWS[0], "pred": "42", "correct": True}


def test_the_pass_rate_is_over_the_responses_with_a_label(rollouts: Path, tmp_path: Path) -> None:
    result = grade([rollouts], out=tmp_path / "out")
    (metric,) = result.metrics
    assert (metric.metric, metric.count) == ("pass_rate", 3)
    assert metric.value == pytest.approx(2 / 3)
    # Wilson: (2/3 + z^2 / 6) / (1 + z^2 / 3) -+ z sqrt(2/27 + z^2 / 36) / (1 + z^2 / 3) with z^2 = 3.8415.
    assert metric.low == pytest.approx(0.2077, abs=5e-4)
    assert metric.high == pytest.approx(0.9385, abs=5e-4)
    assert read_metrics(result.folder) == result.metrics


def test_grade_counts_what_it_graded_kept_and_could_not_grade(rollouts: Path, tmp_path: Path) -> None:
    result = grade([rollouts], out=tmp_path / "out")
    assert result.counts == {
        "responses": 5, "graded": 2, "labels kept": 1, "ungraded: no answer found": 1, "ungraded: no gold answer": 1,
    }  # fmt: skip
    assert (read_manifest(result.folder) or {})["counts"] == result.counts


def test_regrade_judges_every_answer_anew(rollouts: Path, tmp_path: Path) -> None:
    result = grade([rollouts], out=tmp_path / "out", regrade=True)
    assert graded(result.folder)[-1]["correct"] is False
    assert "labels kept" not in result.counts


def test_regrading_a_graded_run_gives_the_same_rows(rollouts: Path, tmp_path: Path) -> None:
    grade([rollouts], out=tmp_path / "once", regrade=True)
    grade([tmp_path / "once"], out=tmp_path / "twice", regrade=True)
    assert graded(tmp_path / "once") == graded(tmp_path / "twice")


def test_gold_answers_may_come_from_a_file_of_problems(rollouts: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "gold.jsonl", [{"problem_id": "b", "answer": 49}, {"problem_id": "x", "answer": "1"}])
    result = grade([rollouts], out=tmp_path / "out", gold=tmp_path / "gold.jsonl")
    assert graded(result.folder)[3]["correct"] is True
    assert graded(result.folder)[0]["correct"] is True  # keeps the row's own where the file has none


def test_a_file_of_gold_answers_without_answers_is_refused(rollouts: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "gold.jsonl", [{"problem_id": "b", "solution": "49"}])
    with pytest.raises(RecordError, match=r"gold.jsonl:1: expected a problem with `problem_id` and `answer`"):
        grade([rollouts], out=tmp_path / "out", gold=tmp_path / "gold.jsonl")


def test_rows_with_neither_gold_answer_nor_label_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rollouts.jsonl", [ROWS[3]])
    with pytest.raises(DataError, match=r"none of 1 rows has a gold answer \(`answer`\) nor a label .*--map answer="):
        grade([tmp_path / "rollouts.jsonl"], out=tmp_path / "out")


def test_labels_alone_cannot_be_regraded(tmp_path: Path) -> None:
    write_rows(tmp_path / "rollouts.jsonl", [{**ROWS[3], "correct": 1}])
    assert grade([tmp_path / "rollouts.jsonl"], out=tmp_path / "out").counts == {"responses": 1, "labels kept": 1}
    with pytest.raises(DataError, match="none of 1 rows has a gold answer"):
        grade([tmp_path / "rollouts.jsonl"], out=tmp_path / "again", regrade=True)


def test_extractors_decide_what_is_found(rollouts: Path, tmp_path: Path) -> None:
    result = grade([rollouts], out=tmp_path / "out", extractors=["marker"])
    assert [row.get("pred") for row in graded(result.folder)] == [None, "41", None, "49", "5"]


def test_an_unknown_extractor_is_refused_before_anything_is_written(rollouts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extractor 'bxed'"):
        grade([rollouts], out=tmp_path / "out", extractors=["bxed"])
    assert not (tmp_path / "out").exists()


def test_columns_are_mapped_and_broken_records_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"problem_id": 1, "prompt": "?", "response": "A: 4", "gt": 4}]
    write_rows(tmp_path / "rollouts.jsonl", [*rows, {"problem_id": 2, "prompt": "?", "gt": 4}])
    result = grade([tmp_path / "rollouts.jsonl"], out=tmp_path / "out", columns={"answer": "gt"}, on_bad="skip")
    assert result.counts["graded"] == 1
    assert sum(count for name, count in result.counts.items() if name.startswith("skipped: ")) == 1


def test_a_killed_run_goes_on_without_grading_rows_twice(rollouts: Path, tmp_path: Path) -> None:
    whole, cut = grade([rollouts], out=tmp_path / "whole"), tmp_path / "cut"
    grade([rollouts], out=cut)
    manifest = json.loads((cut / "manifest.json").read_text())
    (cut / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    lines = (cut / "rollouts.jsonl").read_text().splitlines(keepends=True)
    marked = json.dumps({**json.loads(lines[0]), "marked": True}) + "\n"
    (cut / "rollouts.jsonl").write_text(marked + lines[1] + lines[2][:20])  # the third line is torn
    with pytest.warns(UserWarning, match="the last row was cut off"):
        again = grade([rollouts], out=cut)
    rows = graded(cut)
    assert rows[0].pop("marked") is True
    assert rows == graded(whole.folder)
    assert (again.counts, again.metrics) == (whole.counts, whole.metrics)


def test_a_finished_run_is_not_done_again_and_another_is_refused(rollouts: Path, tmp_path: Path) -> None:
    first = grade([rollouts], out=tmp_path / "out")
    before = (tmp_path / "out" / "rollouts.jsonl").stat().st_mtime_ns
    assert grade([rollouts], out=tmp_path / "out") == first
    assert (tmp_path / "out" / "rollouts.jsonl").stat().st_mtime_ns == before
    with pytest.raises(RunFolderError, match="regrade"):
        grade([rollouts], out=tmp_path / "out", regrade=True)


def test_rollouts_of_the_embedded_world_get_the_exact_truth_of_their_steps(tmp_path: Path) -> None:
    rng, rows = random.Random(0), []
    for index, problem in enumerate(islice(generate("train", seed=23), 30)):
        for sample, text in enumerate([write(problem), solve_as(draw_student(rng), problem, rng)]):
            prompt = problem.text if index % 2 else [{"role": "user", "content": problem.text}]
            row = {"problem_id": f"p{index}", "sample_idx": sample, "prompt": prompt, "answer": answer(problem)}
            rows.append({**row, "response": text})
    write_rows(tmp_path / "rollouts.jsonl", rows)
    result = grade([tmp_path / "rollouts.jsonl"], out=tmp_path / "out")
    out = graded(result.folder)
    for row in out[::2]:
        assert row["correct"] is True
        assert row["first_error"] is None
        assert row["step_labels"] == [True] * row["response"].count("Step ")
    for row in out[1::2]:
        assert row["first_error"] == (row["step_labels"].index(False) if False in row["step_labels"] else None)
        assert row["correct"] or row["first_error"] is not None  # a wrong answer comes from some wrong step
    assert any(row["first_error"] for row in out)


def test_rollouts_of_other_worlds_keep_the_step_truth_that_they_bring_and_get_none(tmp_path: Path) -> None:
    write_rows(tmp_path / "rollouts.jsonl", [ROWS[0], {**ROWS[1], "first_error": 1}, {**ROWS[2], "first_error": None}])
    first, *others = graded(grade([tmp_path / "rollouts.jsonl"], out=tmp_path / "out").folder)
    assert not {"step_labels", "first_error"} & first.keys()
    assert [row["first_error"] for row in others] == [1, None]


def test_grade_agrees_with_the_labels_of_gsm8k_solutions(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "gsm8k" / "rollouts_example_model_solutions.jsonl"
    result = grade([source], out=tmp_path / "out", regrade=True)
    labels = [json.loads(line)["correct"] for line in source.read_text(encoding="utf-8").splitlines()]
    assert [row.get("correct", False) for row in graded(result.folder)] == labels
    assert result.counts == {"responses": 5276, "graded": 5265, "ungraded: no answer found": 11}
