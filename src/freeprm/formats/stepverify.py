"""StepVerify's rows: a student's wrong solution with the first wrong step, marked by a teacher.

A row is a wrong response, its steps joined by line breaks; `incorrect_index` counts from 0. The gold answer is the last
line of `reference_solution`. The id is a hash of the problem, so that the solutions of one problem are grouped.

Source: Daheim et al. 2024, arXiv:2407.09136; eth-nlped/stepverify.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.core.step_labels import labelled_steps
from freeprm.errors import DataError
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Filled, ForeignRow, Index, Texts, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_STEPS, _ERROR, _REFERENCE = "student_incorrect_solution", "incorrect_index", "reference_solution"


class _Row(ForeignRow):
    problem: Filled
    reference_solution: Filled | None = None
    student_incorrect_solution: Texts
    incorrect_index: Index


@dataclass(frozen=True, kw_only=True)
class StepVerify:
    """Wrong responses with their first wrong step."""

    def recognises(self, row: Row) -> bool:
        """Has `problem`, `student_incorrect_solution` and `incorrect_index`."""
        return {"problem", _STEPS, _ERROR} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one response of a row.

        Raises:
            RecordError: the wrong step is none of the steps.
        """
        parsed = _Row.of(row, source)
        steps, error = parsed.student_incorrect_solution, parsed.incorrect_index
        if error >= len(steps):
            raise parsed.wrong(_ERROR, "an index below {count}, from 0", count=len(steps))
        yield Rollout(
            problem_id=id_from(parsed.problem), sample_idx=0, prompt=parsed.problem, response="\n".join(steps),
            answer=(parsed.reference_solution or "").strip().rpartition("\n")[2].strip() or None, correct=False,
            extra={"steps": steps, "first_error": error, **parsed.others(_REFERENCE)},
        )  # fmt: skip

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each response with a wrong step."""
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
