from typing import Any

import pytest

from freeprm.errors import RecordError
from freeprm.formats.mr_gsm8k import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import group_rollouts

ROW: dict[str, Any] = {
    "uuid": "a", "question": "2 + 3, doubled?", "ground_truth_solution": "10", "ground_truth_answer": "10",
    "model_output_steps": ["2 + 3 = 6.", "2 * 6 = 12."], "model_output_answer_correctness": "wrong",
    "model_output_solution_correctness": "wrong", "model_output_solution_first_error_step": 1,
    "model_output_solution_first_error_reason": "sum", "question_type": "original",
}  # fmt: skip
ERROR = "model_output_solution_first_error_step"
FORMAT = PLUGIN()


def test_steps_that_count_from_1_become_those_that_count_from_0(here: Source):
    (one,) = FORMAT.read(ROW, here)
    assert (one.problem_id, one.response, one.answer, one.correct) == ("a", "2 + 3 = 6.\n2 * 6 = 12.", "10", False)
    assert one.extra["first_error"] == 0
    (row,) = FORMAT.write(group_rollouts([one])).rows
    assert row == {**ROW, "uuid": "a-0"}


@pytest.mark.parametrize("absent", ["N/A", None, "", "n/a"])
def test_a_right_solution_has_no_first_error_and_a_wrong_one_without_a_step_an_unknown_one(absent: Any, here: Source):
    right = {**ROW, ERROR: absent, "model_output_solution_correctness": "correct"}
    (one,) = FORMAT.read(right, here)
    assert one.extra["first_error"] is None
    (one,) = FORMAT.read({**ROW, ERROR: absent}, here)
    assert "first_error" not in one.extra


def test_steps_in_one_text_are_its_lines(here: Source):
    (one,) = FORMAT.read({**ROW, "model_output_steps": "2 + 3 = 6.\n\n2 * 6 = 12.", ERROR: "2"}, here)
    assert one.extra["steps"] == ROW["model_output_steps"]
    assert one.extra["first_error"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({ERROR: 0}, f"{ERROR}: is 0; expected the number of one of the 2 steps, from 1, or N/A"),
        ({ERROR: 3}, f"{ERROR}: is 3; expected the number of one of the 2 steps"),
        ({ERROR: True}, f"{ERROR}: is True; expected the number"),
        ({"model_output_answer_correctness": "maybe"}, "model_output_answer_correctness: is 'maybe'; expected correct"),
        ({"model_output_solution_correctness": "correct"}, f"{ERROR}: is 1; expected N/A"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))
