"""MATH's formats, by hand and on the real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from freeprm.core.answers import equivalent
from freeprm.datasets.math import MathDataset
from freeprm.errors import RecordError

ROW = {"problem": "What is $1+1$?", "solution": r"It is $\boxed{\frac{4}{2}}$.", "level": "Level 3", "type": "Algebra"}


def read(tmp_path: Path, row: dict[str, Any]) -> Any:
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (problem,) = MathDataset(path=tmp_path).problems("test", limit=None, seed=0)
    return problem


def test_the_original_format_gives_the_boxed_answer_subject_and_level(tmp_path: Path):
    problem = read(tmp_path, ROW)
    assert (problem.problem_id, problem.answer) == ("math-test-0", r"\frac{4}{2}")
    assert problem.extra == {"subject": "Algebra", "level": 3}


def test_the_math_500_format_gives_its_own_answer_and_id(tmp_path: Path):
    row = {**ROW, "answer": "2", "subject": "Algebra", "level": 3, "unique_id": "test/algebra/1.json"}
    problem = read(tmp_path, row)
    assert (problem.problem_id, problem.answer, problem.extra["level"]) == ("test/algebra/1.json", "2", 3)


def test_maths_own_unknown_level_is_none_and_any_other_is_refused(tmp_path: Path):
    assert read(tmp_path, {**ROW, "level": "Level ?"}).extra["level"] is None
    with pytest.raises(RecordError, match=r"test\.jsonl:1: level: is 'Level 9'; expected 1 to 5"):
        read(tmp_path, {**ROW, "level": "Level 9"})


def test_a_row_without_an_answer_is_refused(tmp_path: Path):
    with pytest.raises(RecordError, match=r"test\.jsonl:1: solution: has no \\boxed"):
        read(tmp_path, {**ROW, "solution": "It is 2."})
    with pytest.raises(RecordError, match=r"test\.jsonl:1: answer: is None"):
        read(tmp_path, {**ROW, "answer": None})


def test_the_published_files_are_read_whole(real_data: Path):
    for split, count in (("test", 5000), ("MATH500", 500)):
        problems = list(MathDataset(path=real_data / "math").problems(split, limit=None, seed=0))
        assert len(problems) == count
        assert {problem.extra["level"] for problem in problems} == {1, 2, 3, 4, 5}
        assert len({problem.extra["subject"] for problem in problems}) == 7


def test_the_two_published_rows_without_an_answer_are_refused_or_left_out_with_a_warning(real_data: Path):
    with pytest.raises(RecordError, match=r"train\.jsonl:5342: answer: is ''.*on_bad = skip"):
        list(MathDataset(path=real_data / "math").problems("train", limit=None, seed=0))
    with pytest.warns(UserWarning, match="left out 2 of 7500 rows"):
        problems = list(MathDataset(path=real_data / "math", on_bad="skip").problems("train", limit=None, seed=0))
    assert len(problems) == 7498
    assert sum(problem.extra["level"] is None for problem in problems) == 2


def test_answers_from_the_boxes_are_the_published_ones(real_data: Path, tmp_path: Path):
    rows = [json.loads(line) for line in (real_data / "math" / "test.jsonl").open(encoding="utf-8")]
    file = tmp_path / "test.jsonl"
    bare = [{name: value for name, value in row.items() if name != "answer"} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in bare), encoding="utf-8")
    found = [problem.answer for problem in MathDataset(path=file).problems("test", limit=None, seed=0)]
    differ = [pair for pair in zip(found, [row["answer"] for row in rows], strict=True) if pair[0] != pair[1]]
    assert len(differ) < 100  # \\text{Evelyn} against Evelyn, and the like
    assert all(equivalent(*pair).correct for pair in differ)
