"""Grading: labels kept or made, reasons for those not known, exact step truth, counts, and resumption."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from freeprm.core.groups import size, trainable
from freeprm.errors import ConfigError, DataError, PluginError, RecordError, RunFolderError
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import write_rows
from freeprm.io.runs import read_manifest, read_metrics
from freeprm.stages.grading import grade
from freeprm.stages.selection import select
from freeprm.types import group_rollouts
from freeprm.world.problems import generate
from freeprm.world.solutions import answer, draw_student, solve_as
from freeprm.world.solutions import write as write_solution

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
    # The third has no answer, and so is wrong; the last label is kept.
    assert [row.get("correct") for row in rows] == [True, False, False, None, True]
    assert [row.get("grade_reason") for row in rows] == [None, None, None, "no gold answer", None]
    assert rows[0] == {**ROWS[0], "pred": "42", "correct": True}


def test_the_pass_rate_is_over_the_responses_with_a_label(rollouts: Path, tmp_path: Path) -> None:
    result = grade([rollouts], out=tmp_path / "out", no_answer="none")
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
        "responses": 5, "graded": 3, "labels kept": 1, "graded wrong without an answer": 1,
        "ungraded: no gold answer": 1,
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
        for sample, text in enumerate([write_solution(problem), solve_as(draw_student(rng), problem, rng)]):
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


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    write_rows(path, [{"problem_id": "p", "prompt": "?", "sample_idx": index, **row} for index, row in enumerate(rows)])
    return path


def verdicts(folder: Path) -> list[Any]:
    return [row.get("grade_reason", row.get("correct")) for row in graded(folder)]


def test_graders_are_chosen_by_name_with_options(tmp_path: Path) -> None:
    answers = [("(C)", "C"), ("3.1", "\\pi"), ("the Nile", "nile")]
    source = write(tmp_path / "rows.jsonl", [{"response": f"Answer: {pred}", "answer": gold} for pred, gold in answers])
    wanted: dict[str, tuple[dict[str, Any], list[Any]]] = {
        "choice": ({}, [True, *["gold answer is not a choice of ABCDEFGHIJ"] * 2]),
        "numeric": ({"relative": 0.02}, ["gold answer is not a number", True, "gold answer is not a number"]),
        "text": ({"ignore_articles": True}, [False, False, True]),
        "math": ({}, [True, False, True]),
    }
    for name, (options, expected) in wanted.items():
        made = grade([source], out=tmp_path / name, grader=name, grader_options=options)
        assert verdicts(made.folder) == expected
    with pytest.raises(RunFolderError, match=r"grader_options\.relative is 0\.02, not 0\.03"):
        grade([source], out=tmp_path / "numeric", grader="numeric", grader_options={"relative": 0.03})


def test_a_users_own_grader_costs_only_the_answers_on_which_it_fails(tmp_path: Path) -> None:
    preds = ["5", "sleep", "a crash", "6", "an error", "-", "5"]
    source = write(tmp_path / "rows.jsonl", [{"response": "", "pred": pred, "answer": "5"} for pred in preds])
    made = grade([source], out=tmp_path / "out", grader="hostile:judge", timeout=1, workers=2)
    error = "ValueError: invalid literal for int() with base 10: 'x'"
    died = "its process ended with SIGSEGV"
    assert verdicts(made.folder) == [
        True,
        "took longer than 1 s",
        died,
        False,
        error,
        "not decided by the grader",
        True,
    ]
    assert made.counts == {
        "responses": 7, "graded": 3, "ungraded: took longer than 1 s": 1, f"ungraded: {died}": 1,
        f"ungraded: {error}": 1, "ungraded: not decided by the grader": 1,
    }  # fmt: skip


def test_a_users_own_extractor_says_why_it_failed(tmp_path: Path) -> None:
    responses = ["so 5", "an error", ""]
    source = write(tmp_path / "rows.jsonl", [{"response": response, "answer": "5"} for response in responses])
    made = grade([source], out=tmp_path / "out", extractors=["regex:^ANSWER (.*)", "hostile:find"], no_answer="wrong")
    assert verdicts(made.folder) == [True, "ValueError: invalid literal for int() with base 10: 'x'", False]


def test_a_hostile_answer_costs_its_own_label(tmp_path: Path) -> None:
    preds = ["x+1", "10^{10^{10}}", "(a+b+c+d+f+g)^{60}", "1+x"]
    source = write(tmp_path / "rows.jsonl", [{"response": f"\\boxed{{{pred}}}", "answer": "1 + x"} for pred in preds])
    made = grade([source], out=tmp_path / "out", timeout=2)
    size = "answer may have more than 20,000 digits"
    assert verdicts(made.folder)[:2] == [True, size]
    assert verdicts(made.folder)[2] in (False, "took longer than 2 s")
    assert verdicts(made.folder)[3] is True


def test_a_response_without_an_answer_is_wrong_or_unknown_and_truncated_ones_are_marked(tmp_path: Path) -> None:
    rows = [
        {"response": "\\boxed{5}", "answer": "5", "truncated": True},
        {"response": "so it", "answer": "5", "truncated": True},
        {"response": "Hm", "answer": "5"},
        {"response": "Hm", "answer": None},
    ]
    source = write(tmp_path / "rows.jsonl", rows)
    made = grade([source], out=tmp_path / "none", no_answer="none")
    assert verdicts(made.folder) == [True, "no answer found, truncated", "no answer found", "no gold answer"]
    assert made.counts["truncated"] == 2
    made = grade([source], out=tmp_path / "wrong")
    assert verdicts(made.folder) == [True, False, False, "no gold answer"]
    assert made.counts["graded wrong without an answer"] == 2
    assert [row.get("truncated", False) for row in graded(made.folder)] == [True, True, False, False]
    with pytest.raises(ConfigError, match="no_answer: is 'false'; expected one of none, wrong"):
        grade([source], out=tmp_path / "false", no_answer="false")  # type: ignore[arg-type]  # what users give


def test_no_answer_is_wrong_in_training_as_in_selection(tmp_path: Path) -> None:
    rows = [{"response": text, "answer": "5", "truncated": text == "so it"} for text in ("A: 5", "so it", "Hm")]
    made = grade([write(tmp_path / "rows.jsonl", rows)], out=tmp_path / "graded")
    groups = group_rollouts(read_rollouts([made.folder]).rollouts)
    assert size(trainable(groups, needs_pairs=True).groups).pairs == 2  # the right one with each of the others
    chosen = select([made.folder], out=tmp_path / "chosen", n=[1])
    assert not any("without label" in reason for reason in chosen.counts)
    assert next(m.value for m in chosen.metrics if m.selector == "random") == pytest.approx(1 / 3)


def test_a_sample_that_was_abandoned_is_not_wrong_for_want_of_an_answer(tmp_path: Path) -> None:
    rows = [{"response": "so it", "answer": "5", "truncated": True, "stop_reason": "abandoned"}]
    rows += [{"response": "A: 4", "answer": "5", "stop_reason": "abandoned"}]
    made = grade([write(tmp_path / "rows.jsonl", rows)], out=tmp_path / "out")
    assert verdicts(made.folder) == ["no answer found, abandoned", False]


def test_a_pair_is_judged_once_in_a_run_and_not_again_when_it_is_resumed(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    source = write(tmp_path / "rows.jsonl", [{"response": "", "pred": f"note in {calls}", "answer": "5"}] * 4)
    grade([source], out=tmp_path / "out", grader="hostile:judge", workers=1)
    assert calls.read_text() == "judged\n"
    whole = (tmp_path / "out" / "rollouts.jsonl").read_bytes()
    interrupt(tmp_path / "out", rows=1)
    grade([source], out=tmp_path / "out", grader="hostile:judge", workers=1)
    assert calls.read_text() == "judged\n"  # the verdict of the first row serves for all
    assert (tmp_path / "out" / "rollouts.jsonl").read_bytes() == whole


@pytest.mark.parametrize("rows", [1, 7, 23])
def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path: Path, rows: int) -> None:
    preds = [f"{number % 7}x + {number % 3}" for number in range(40)]
    source = write(tmp_path / "rows.jsonl", [{"response": f"\\boxed{{{pred}}}", "answer": "1 + 2x"} for pred in preds])
    first = grade([source], out=tmp_path / "out", workers=1)
    whole = (tmp_path / "out" / "rollouts.jsonl").read_bytes()
    interrupt(tmp_path / "out", rows=rows)
    again = grade([source], out=tmp_path / "out", workers=2)
    assert (tmp_path / "out" / "rollouts.jsonl").read_bytes() == whole
    assert again == first


def interrupt(folder: Path, *, rows: int) -> None:
    """Leave a finished run as it was after so many rows."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    lines = (folder / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "rollouts.jsonl").write_bytes(b"".join(lines[:rows]))


def test_what_cannot_be_is_refused_before_anything_is_written(rollouts: Path, tmp_path: Path) -> None:
    for setting, message in {"grader": "graders: no 'x'", "executor": "executors: no 'x'"}.items():
        with pytest.raises(PluginError, match=message):
            grade([rollouts], out=tmp_path / "out", **{setting: "x"})  # type: ignore[arg-type]  # one of several
    with pytest.raises(ConfigError, match="expected numbers above 0"):
        grade([rollouts], out=tmp_path / "out", timeout=0)
    with pytest.raises(ConfigError, match="workers: is 0; expected 1 or more"):
        grade([rollouts], out=tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_progress_says_the_pass_rate(rollouts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grade([rollouts], out=tmp_path / "out")
    assert re.fullmatch(r"grade: 5 responses in .*/s, pass rate 50\.0%\n", capsys.readouterr().err)


def test_grade_agrees_with_the_labels_of_gsm8k_solutions(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "gsm8k" / "rollouts_example_model_solutions.jsonl"
    result = grade([source], out=tmp_path / "out", regrade=True)
    labels = [json.loads(line)["correct"] for line in source.read_text(encoding="utf-8").splitlines()]
    assert [bool(row["correct"]) for row in graded(result.folder)] == labels
    assert result.counts == {"responses": 5276, "graded": 5276, "graded wrong without an answer": 11}


def test_grade_agrees_with_the_labels_of_qwen_solutions_but_for_nine_wrong_ones(
    real_data: Path, tmp_path: Path
) -> None:
    source = real_data / "qwen_rm_maj_100x8" / "rollouts.jsonl"
    result = grade([source], out=tmp_path / "out", regrade=True)
    labels = [json.loads(line)["correct"] for line in source.read_text(encoding="utf-8").splitlines()]
    rows = graded(result.folder)
    unlike = [row for row, label in zip(rows, labels, strict=True) if row.get("correct") is not label]
    assert len(rows) == 800
    times = [("4:30 \\text{ p.m.}", "\\text{4:30 p.m.}", True)] * 8  # labelled wrong there, like the number
    assert [(row["pred"], row["answer"], row["correct"]) for row in unlike] == [*times, ("10000", "10{,}000", True)]


def test_a_row_without_a_verdict_says_that_its_label_is_not_known(tmp_path: Path):
    row = {"problem_id": "p", "prompt": "?", "response": "I cannot tell.", "answer": "4"}
    write_rows(tmp_path / "rows.jsonl", [row])
    result = grade([tmp_path / "rows.jsonl"], out=tmp_path / "out", no_answer="none")
    (made,) = graded(result.folder)
    assert made["correct"] is None
    assert made["grade_reason"] == "no answer found"
