"""StepVerify's rows: a student's wrong solution with the first wrong step, as a teacher marked it.

    {"problem": text, "topic": text, "reference_solution": "... steps ...\\n 10", "student_incorrect_solution": [text],
     "incorrect_index": 0, "incorrect_step": text, "error_category", "error_description", "dialog_history",
     "student_correct_response"}

Read: a wrong response, its steps joined by line breaks; `incorrect_index` counts from 0 and is its `first_error`. The
gold answer is the last line of `reference_solution`. The rows have no id: it is a hash of the problem, so that the
solutions of one problem stand together. Every other column is carried along.

Written: a row of each response with a wrong step. Lost are ids, right responses, the labels of steps behind the first
error, and every column that was not read from such a row.

Source: Daheim et al. 2024, arXiv:2407.09136; eth-nlped/stepverify.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.core.step_labels import labelled_steps
from freeprm.errors import DataError
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_STEPS, _ERROR, _REFERENCE = "student_incorrect_solution", "incorrect_index", "reference_solution"


@dataclass(frozen=True, kw_only=True)
class StepVerify:
    """Wrong responses with their first wrong step."""

    def recognises(self, row: Row) -> bool:
        """Has `problem`, `student_incorrect_solution` and `incorrect_index`."""
        return {"problem", _STEPS, _ERROR} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one response of a row.

        Raises:
            RecordError: a field is absent or of the wrong kind, or the wrong step is none of the steps.
        """
        fields = Fields(row, source)
        problem, steps = fields.text("problem"), fields.texts(_STEPS)
        reference = fields.text(_REFERENCE) if fields.has(_REFERENCE) else ""
        error = fields.index(_ERROR, count=len(steps))
        yield Rollout(
            problem_id=id_from(problem), sample_idx=0, prompt=problem, response="\n".join(steps),
            answer=reference.strip().rpartition("\n")[2].strip() or None, correct=False,
            extra={"steps": steps, "first_error": error, **fields.others("problem", _STEPS, _ERROR)},
        )  # fmt: skip

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each response with a wrong step.

        Raises:
            DataError: there is none.
        """
        return write_each(rollouts_of(groups), _row, needs="responses with a wrong step (`step_labels`, `first_error`)")


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    labelled = labelled_steps(rollout)
    error = labelled.first_error
    if error is None or rollout.correct:
        raise DataError("responses that are right, or without a wrong step")
    if None in labelled.labels[:error]:
        raise DataError("responses with a step of unknown label before the wrong one")
    carried = ("topic", "error_category", "error_description", "dialog_history", "student_correct_response")
    return {
        "problem": as_text(rollout.prompt),
        _REFERENCE: rollout.extra.get(_REFERENCE, rollout.answer),
        _STEPS: labelled.steps,
        _ERROR: error,
        "incorrect_step": labelled.steps[error],
        **{name: rollout.extra.get(name) for name in carried},
    }


PLUGIN = StepVerify
