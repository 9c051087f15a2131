"""Solutions assembled from PRM800K's candidate steps: whole trajectories with a rating for each step.

A step that was not rated but written by a labeler (`human_steps`, by index) is right. The response is the steps, joined
by line breaks; `pred` is its answer; the outcome is unknown. The id is a hash of the prompt. `ratings` and
`human_steps` are carried along.

Source: Lightman et al. 2023, arXiv:2305.20050, phase 1; a derived form, not OpenAI's (for that see `prm800k`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from freeprm.core.step_labels import labelled_steps
from freeprm.formats._ratings import Rating, label_of, rating_of
from freeprm.formats.base import STEP_LABELS, Written, joined, rollouts_of, step_columns, write_each
from freeprm.io.columns import Answer, Expected, Filled, ForeignRow, Index, Texts, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(ForeignRow):
    prompt: Filled
    steps: Texts
    ratings: Annotated[list[Rating], Expected("-1, 0, 1 or null for each step")]
    human_steps: Annotated[list[Index], Expected("a list of indices of steps, from 0")] | None = None
    first_error: Any = None
    pred: Answer | None = None


@dataclass(frozen=True, kw_only=True)
class PRM800KSolutions:
    """Whole solutions with ratings."""

    neutral: bool | None = True
    """The label of a step rated 0: true, as PRM800K's paper counts it; false, or none for no label."""

    def recognises(self, row: Row) -> bool:
        """Has `prompt`, `steps` and `ratings`."""
        return {"prompt", "steps", "ratings"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one rollout of a row.

        Raises:
            RecordError: the ratings are not one a step, or a labeler's step is none.
        """
        parsed = _Row.of(row, source)
        n_steps, human = len(parsed.steps), parsed.human_steps or []
        if len(parsed.ratings) != n_steps:
            raise parsed.wrong("ratings", found=f"has {len(parsed.ratings)} for {n_steps} steps")
        if any(index >= n_steps for index in human):
            raise parsed.wrong("human_steps", "a list of indices below {count}, from 0", count=n_steps)
        labels = [
            True if rating is None and index in human else label_of(rating, neutral=self.neutral)
            for index, rating in enumerate(parsed.ratings)
        ]
        yield Rollout(
            problem_id=id_from(parsed.prompt),
            sample_idx=0,
            prompt=parsed.prompt,
            response=joined(parsed.steps),
            pred=parsed.pred,
            extra={**parsed.others("ratings", "human_steps"), **step_columns(parsed.steps, labels)},
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each rollout with step labels, with the ratings carried along, if any."""
        return write_each(rollouts_of(groups), _row, needs=STEP_LABELS)


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    labelled = labelled_steps(rollout)
    ratings = rollout.extra.get("ratings", [rating_of(label) for label in labelled.labels])
    return {
        "prompt": as_text(rollout.prompt),
        "steps": labelled.steps,
        "ratings": ratings,
        "human_steps": rollout.extra.get("human_steps", []),
        "first_error": ratings.index(-1) if -1 in ratings else -1,
        "pred": rollout.pred,
    }


PLUGIN = PRM800KSolutions
