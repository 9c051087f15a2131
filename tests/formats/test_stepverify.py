from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import RecordError
from freeprm.formats._reading import read_records
from freeprm.formats.stepverify import PLUGIN
from freeprm.io.rows import Source, write_rows
from freeprm.types import group_rollouts

ROW: dict[str, Any] = {
    "problem": "2 + 3, doubled?", "topic": "words", "reference_solution": "2 + 3 = 5\n2 * 5 = 10\n 10",
    "student_incorrect_solution": ["2 + 3 = 5.", "2 * 5 = 12.", " 12"], "incorrect_index": 1,
    "incorrect_step": "2 * 5 = 12.", "error_category": "c", "error_description": "d", "dialog_history": [],
    "student_correct_response": "It is 10.",
}  # fmt: skip
FORMAT = PLUGIN()


def test_a_students_solution_is_wrong_from_its_index_on_and_the_gold_is_the_last_line(here: Source):
    (one,) = FORMAT.read(ROW, here)
    assert (one.answer, one.correct, one.extra["first_error"]) == ("10", False, 1)
    assert one.response == "2 + 3 = 5.\n2 * 5 = 12.\n 12"
    assert FORMAT.write(group_rollouts([one])).rows == [ROW]


def test_rows_without_an_id_are_solutions_of_the_problem_that_they_tell(tmp_path: Path):
    other = {**ROW, "student_incorrect_solution": ["12"], "incorrect_index": 0}
    write_rows(tmp_path / "rows.jsonl", [ROW, other, {**other, "problem": "another?"}])
    read = read_records([tmp_path / "rows.jsonl"])
    assert [one.sample_idx for one in read.rollouts] == [0, 1, 0]
    assert len({one.problem_id for one in read.rollouts}) == 2


def test_a_step_that_is_not_there_is_refused(here: Source):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: incorrect_index: is 3; expected an index below 3, from 0"):
        list(FORMAT.read({**ROW, "incorrect_index": 3}, here))
