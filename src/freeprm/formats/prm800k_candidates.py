"""PRM800K cut into single judgements ("stepwise critic"): the steps so far, a candidate for the next, and its rating.

Each row is a rollout that ends with the candidate; only its last step has a label, which is true if it was not rated
but written by a labeler. The response is the steps, joined by line breaks, and `truncated` unless it `is_solution`; the
outcome is unknown. Rows with the same instruction are responses to one problem, whose id is a hash of it. Writing makes
a row of each labelled step of each rollout.

Source: Lightman et al. 2023, arXiv:2305.20050; Birchlabs/openai-prm800k-stepwise-critic.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from freeprm.core.step_labels import labelled_steps
from freeprm.errors import DataError
from freeprm.formats._ratings import Rating, label_of, rating_of
from freeprm.formats.base import Written, joined, rollouts_of, step_columns
from freeprm.io.columns import Expected, Filled, ForeignRow, Label, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_CARRIED = ("is_human_response", "is_preferred_response", "error_reason")


class _Row(ForeignRow):
    instruction: Filled
    responses: Annotated[list[Filled], Expected("a list of texts, none of them empty")]
    next_response: Filled
    rating: Rating
    is_human_response: Any = None
    is_solution: Label | None = None


@dataclass(frozen=True, kw_only=True)
class PRM800KCandidates:
    """Candidate steps, each with its rating."""

    neutral: bool | None = True
    """The label of a step rated 0: true, as PRM800K's paper counts it; false, or none for no label."""

    def recognises(self, row: Row) -> bool:
        """Has `instruction`, `responses`, `next_response` and `rating`."""
        return {"instruction", "responses", "next_response", "rating"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one rollout of a row."""
        parsed = _Row.of(row, source)
        steps = [*parsed.responses, parsed.next_response]
        human = parsed.rating is None and parsed.is_human_response
        label = True if human else label_of(parsed.rating, neutral=self.neutral)
        yield Rollout(
            problem_id=id_from(parsed.instruction),
            sample_idx=0,
            prompt=parsed.instruction,
            response=joined(steps),
            truncated=not parsed.is_solution,
            extra={
                **parsed.others("rating", "is_human_response"),
                **step_columns(steps, [*[None] * len(parsed.responses), label]),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each labelled step."""
        rows: list[Row] = []
        skipped: Counter[str] = Counter()
        for rollout in rollouts_of(groups):
            try:
                rows += [_as_read(rollout)] if "rating" in rollout.extra else _rows(rollout)
            except DataError as error:
                skipped[str(error)] += 1
        if not rows:
            raise DataError("no step is labelled; this format needs step labels (`step_labels` or `first_error`)")
        return Written(rows, skipped)


def _as_read(rollout: Rollout) -> Row:
    """The row that a rollout came from."""
    *before, last = labelled_steps(rollout).steps
    return _row(rollout, before, last, rollout.extra["rating"], is_solution=not rollout.truncated)


def _rows(rollout: Rollout) -> Iterator[Row]:
    labelled = labelled_steps(rollout)
    for index, (step, label) in enumerate(zip(labelled.steps, labelled.labels, strict=True)):
        if label is not None:
            ends = index == len(labelled.steps) - 1 and bool(rollout.correct)
            yield _row(rollout, labelled.steps[:index], step, rating_of(label), is_solution=ends)


def _row(rollout: Rollout, before: Sequence[str], step: str, rating: float | None, *, is_solution: bool) -> Row:
    return {
        "instruction": as_text(rollout.prompt),
        "responses": list(before),
        "next_response": step,
        "answer": rollout.extra.get("source_answer"),
        "is_solution": is_solution,
        "rating": rating,
        **{name: rollout.extra.get(name) for name in _CARRIED if name in rollout.extra or name.startswith("is_")},
    }


PLUGIN = PRM800KCandidates
