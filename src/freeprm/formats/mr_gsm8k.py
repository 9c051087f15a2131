"""MR-GSM8K's rows: a response's steps with the first wrong one, counted from 1.

The response is the steps, joined by line breaks. `correct` is that of the answer; for a wrong solution without a step,
the first error is unknown. The id is `uuid`, else a hash of question and steps.

Source: Zeng et al. 2023, arXiv:2312.17080; dvlab-research/MR-GSM8K.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator

from freeprm.core.step_labels import judged_response
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Answer, Expected, Filled, ForeignRow, Identifier, Texts, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_ERROR = "model_output_solution_first_error_step"
_CORRECT = {"correct": True, "wrong": False, "incorrect": False, "true": True, "false": False}
_NONE = ("", "n/a", "na", "none")


def _verdict(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in _CORRECT:
        raise ValueError
    return _CORRECT[value.strip().lower()]


def _number(value: Any) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    number = float(value)  # raises ValueError
    if not number.is_integer():
        raise ValueError
    return int(number)


def _lines(value: Any) -> Any:
    return [line for line in value.split("\n") if line.strip()] if isinstance(value, str) else value


_Verdict = Annotated[bool, PlainValidator(_verdict), Expected("correct or wrong")]
_STEP = "the number of one of the steps, from 1, or N/A where none is wrong"


class _Row(ForeignRow):
    uuid: Identifier | None = None
    question: Filled
    ground_truth_answer: Answer | None = None
    model_output_steps: Annotated[Texts, BeforeValidator(_lines)]
    model_output_answer_correctness: _Verdict
    model_output_solution_correctness: _Verdict
    model_output_solution_first_error_step: Annotated[int | None, PlainValidator(_number), Expected(_STEP)]


@dataclass(frozen=True, kw_only=True)
class MRGSM8K:
    """Responses with their first wrong step."""

    def recognises(self, row: Row) -> bool:
        """Has `question`, `model_output_steps` and `model_output_solution_first_error_step`."""
        return {"question", "model_output_steps", _ERROR} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one response of a row.

        Raises:
            RecordError: the wrong step is none of the steps, or there is one in a right solution.
        """
        parsed = _Row.of(row, source)
        steps, number = parsed.model_output_steps, parsed.model_output_solution_first_error_step
        right = parsed.model_output_solution_correctness
        if number is not None and not 1 <= number <= len(steps):
            raise parsed.wrong(_ERROR, _STEP.replace("the steps", "the {count} steps"), count=len(steps))
        if right and number is not None:
            raise parsed.wrong(_ERROR, "N/A, as the solution is said to be correct")
        known = {"first_error": None if number is None else number - 1} if right or number is not None else {}
        others = parsed.others("model_output_solution_correctness", _ERROR)
        yield Rollout(
            problem_id=parsed.uuid or id_from(parsed.question, steps), sample_idx=0, prompt=parsed.question,
            response="\n".join(steps), answer=parsed.ground_truth_answer,
            correct=parsed.model_output_answer_correctness, extra={"steps": steps, **known, **others},
        )  # fmt: skip

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each response whose outcome and first error are known."""
        needs = "responses with `correct` and `step_labels` or `first_error`"
        return write_each(rollouts_of(groups), _row, needs=needs)


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    correct, labelled = judged_response(rollout)
    error = labelled.first_error
    says = {True: "correct", False: "wrong"}
    return {
        "uuid": f"{rollout.problem_id}-{rollout.sample_idx}",
        "question": as_text(rollout.prompt),
        "ground_truth_solution": rollout.extra.get("ground_truth_solution"),
        "ground_truth_answer": rollout.answer,
        "model_output_steps": labelled.steps,
        "model_output_answer_correctness": says[correct],
        "model_output_solution_correctness": says[error is None],
        _ERROR: "N/A" if error is None else error + 1,
        "model_output_solution_first_error_reason": rollout.extra.get("model_output_solution_first_error_reason"),
        "question_type": rollout.extra.get("question_type"),
    }


PLUGIN = MRGSM8K
