"""MR-GSM8K's rows: a response's steps with the first wrong one, counted from 1.

    {"uuid": text, "question": text, "ground_truth_solution": text, "ground_truth_answer": text,
     "model_output_steps": [text], "model_output_answer_correctness": "correct" or "wrong",
     "model_output_solution_correctness": "correct" or "wrong", "model_output_solution_first_error_step": 2 or "N/A",
     "model_output_solution_first_error_reason": text, "question_type": "original", "POT" or "reversed"}

Read: a response, its steps joined by line breaks. `correct` is that of the answer; where the solution is wrong and no
step is said, the first error is not known. The id is `uuid`, else a hash of question and steps. Every other column is
carried along.

Written: a row of each response with `correct` and known first error. Lost are the labels of steps behind it and every
column that was not read from such a row.

Source: Zeng et al. 2023, arXiv:2312.17080; dvlab-research/MR-GSM8K.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from freeprm.core.step_labels import judged_steps
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_STEPS = "model_output_steps"
_ANSWER = "model_output_answer_correctness"
_SOLUTION = "model_output_solution_correctness"
_ERROR = "model_output_solution_first_error_step"
_VERDICTS = {"correct": True, "wrong": False, "incorrect": False, "true": True, "false": False}
_NONE = ("", "n/a", "na", "none")


@dataclass(frozen=True, kw_only=True)
class MRGSM8K:
    """Responses with their first wrong step."""

    def recognises(self, row: Row) -> bool:
        """Has `question`, `model_output_steps` and `model_output_solution_first_error_step`."""
        return {"question", _STEPS, _ERROR} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one response of a row.

        Raises:
            RecordError: a field is absent or of the wrong kind, or the wrong step is none of the steps.
        """
        fields = Fields(row, source)
        question = fields.text("question")
        is_text = isinstance(row.get(_STEPS), str)
        steps = [line for line in fields.text(_STEPS).split("\n") if line.strip()] if is_text else fields.texts(_STEPS)
        expected = "the number of one of the {count} steps, from 1, or N/A where none is wrong"
        number = fields.get(_ERROR, lambda value: _number(value, len(steps)), expected=expected, count=len(steps))
        correct, solution = (
            fields.get(name, _verdict, expected="correct or wrong") for name in (_ANSWER, _SOLUTION)
        )  # fmt: skip
        if solution and number is not None:
            raise fields.wrong(_ERROR, "N/A, as the solution is said to be correct")
        known = {"first_error": None if number is None else number - 1} if solution or number is not None else {}
        others = fields.others("uuid", "question", "ground_truth_answer", _STEPS, _ANSWER)
        yield Rollout(
            problem_id=fields.identifier("uuid") or id_from(question, steps), sample_idx=0, prompt=question,
            response="\n".join(steps), answer=fields.answer("ground_truth_answer"), correct=correct,
            extra={"steps": steps, **known, **others},
        )  # fmt: skip

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each response whose outcome and first error are known.

        Raises:
            DataError: there is none.
        """
        needs = "responses with `correct` and `step_labels` or `first_error`"
        return write_each(rollouts_of(groups), _row, needs=needs)


def _number(value: Any, count: int) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    number = float(value)  # raises ValueError
    if not number.is_integer() or not 1 <= number <= count:
        raise ValueError
    return int(number)


def _verdict(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in _VERDICTS:
        raise ValueError
    return _VERDICTS[value.strip().lower()]


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    correct, labelled = judged_steps(rollout)
    error = labelled.first_error
    says = {True: "correct", False: "wrong"}
    return {
        "uuid": f"{rollout.problem_id}-{rollout.sample_idx}",
        "question": as_text(rollout.prompt),
        "ground_truth_solution": rollout.extra.get("ground_truth_solution"),
        "ground_truth_answer": rollout.answer,
        _STEPS: labelled.steps,
        _ANSWER: says[correct],
        _SOLUTION: says[error is None],
        _ERROR: "N/A" if error is None else error + 1,
        "model_output_solution_first_error_reason": rollout.extra.get("model_output_solution_first_error_reason"),
        "question_type": rollout.extra.get("question_type"),
    }


PLUGIN = MRGSM8K
