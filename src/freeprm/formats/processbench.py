"""ProcessBench: the steps of a response with the index of the first wrong one, -1 for none.

The same rows with `step_scores` (and `scorer`) added are read and written as well. A response is its steps joined by
blank lines; an id stands once for each scorer.

Source: Zheng et al. 2024, arXiv:2412.06559.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Strict

from freeprm.core.step_labels import judged_response
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Expected, Filled, ForeignRow, Numbers, Texts
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_LABEL = "-1 for no error, or the index of one of the {count} steps"
_SCORES = "{count} finite numbers, one a step"


class _Row(ForeignRow):
    id: Filled
    problem: Filled
    steps: Texts
    final_answer_correct: Annotated[bool, Strict(), Expected("true or false")]
    label: Annotated[int, Strict(), Expected("-1 for no error, or the index of a step")]
    step_scores: Annotated[Numbers, Expected("finite numbers, one a step")] | None = None
    scorer: Filled | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessBench:
    """A response a row."""

    unique_ids: ClassVar[bool] = True

    def recognises(self, row: Row) -> bool:
        """Whether ProcessBench's columns are there."""
        return row.keys() >= {"id", "problem", "steps", "final_answer_correct", "label"}

    def read(self, row: Row, source: Source) -> Iterator[Rollout]:
        """The rollout of one row.

        Raises:
            RecordError: the first error is none of the steps, or the scores are not one a step.
        """
        parsed = _Row.of(row, source)
        n_steps, scores = len(parsed.steps), parsed.step_scores
        if not -1 <= parsed.label < n_steps:
            raise parsed.wrong("label", _LABEL, count=n_steps)
        if scores is not None and len(scores) != n_steps:
            raise parsed.wrong("step_scores", _SCORES, count=n_steps)
        yield Rollout(
            problem_id=parsed.id,
            sample_idx=0,
            prompt=parsed.problem,
            response="\n\n".join(parsed.steps),
            correct=parsed.final_answer_correct,
            scorer=parsed.scorer,
            step_scores=scores,
            extra={
                "steps": parsed.steps,
                "first_error": None if parsed.label == -1 else parsed.label,
                **parsed.others(),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row for each response with known first error and outcome; ids distinguish samples of a problem."""
        needs = "responses with `correct` and `step_labels` or `first_error`, as problems of the embedded world have"
        return write_each(_alone(groups), _row, needs=needs)


def _alone(groups: Iterable[Group]) -> Iterator[tuple[str, Rollout]]:
    """Each response with a unique id."""
    for group in groups:
        for rollout in group.rollouts:
            alone = len(group.rollouts) == 1
            yield rollout.problem_id if alone else f"{rollout.problem_id}-{rollout.sample_idx}", rollout


def _row(item: tuple[str, Rollout], skipped: Counter[str]) -> Row:
    own_id, rollout = item
    correct, labelled = judged_response(rollout)
    error = labelled.first_error
    return {
        "id": own_id,
        "generator": rollout.extra.get("generator"),
        "problem": as_text(rollout.prompt),
        "steps": labelled.steps,
        "final_answer_correct": correct,
        "label": -1 if error is None else error,
        **({} if rollout.scorer is None else {"scorer": rollout.scorer}),
        **({} if rollout.step_scores is None else {"step_scores": list(rollout.step_scores)}),
    }


PLUGIN = ProcessBench
