"""Solutions put together from PRM800K's candidate steps: whole trajectories with a rating for each step.

    {"prompt": text, "steps": [text], "ratings": [-1|0|1|null], "human_steps": [index], "first_error": -1 or index,
     "pred": text}

Read: the ratings are `step_labels`: 1 true, -1 false, 0 as `neutral` says, null true where a labeler wrote the step
(`human_steps`), else none. The response is the steps, a line break between two; `pred` is its answer. Whether that is
right is not said. The id is a hash of the prompt. `ratings` and `human_steps` are carried along.

Written: each rollout with step labels, with the ratings carried along where there are any. Lost are the outcome and
gold answers, and every other column.

Source: Lightman et al. 2023, arXiv:2305.20050, phase 1; a derived form, not OpenAI's (for that see `prm800k`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from freeprm.core.step_labels import first_error, labelled_steps
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


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
            RecordError: a field is absent or of the wrong kind, or the ratings are not one a step.
        """
        fields = Fields(row, source)
        prompt, steps = fields.text("prompt"), fields.texts("steps")
        ratings = fields.get(
            "ratings", lambda value: _ratings(value, len(steps)), expected="-1, 0, 1 or null for each step"
        )
        human = fields.indices("human_steps", count=len(steps)) if fields.has("human_steps") else []
        names: dict[int | None, bool | None] = {1: True, -1: False, 0: self.neutral, None: None}
        labels = [True if rating is None and index in human else names[rating] for index, rating in enumerate(ratings)]
        yield Rollout(
            problem_id=id_from(prompt),
            sample_idx=0,
            prompt=prompt,
            response="\n".join(step.strip() for step in steps),
            pred=fields.answer("pred"),
            extra={
                **fields.others("prompt", "steps", "first_error", "pred"),
                "steps": steps,
                "step_labels": labels,
                "first_error": first_error(labels),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each rollout with step labels.

        Raises:
            DataError: none has them.
        """
        return write_each(rollouts_of(groups), _row, needs="step labels (`step_labels` or `first_error`)")


def _ratings(value: Any, count: int) -> list[int | None]:
    if not isinstance(value, list) or any(isinstance(one, bool) or one not in (-1, 0, 1, None) for one in value):
        raise ValueError
    if len(value) != count:
        raise ValueError(f"has {len(value)} for {count} steps")
    return [None if one is None else int(one) for one in value]


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    labelled = labelled_steps(rollout)
    made = [None if label is None else 1 if label else -1 for label in labelled.labels]
    ratings = rollout.extra.get("ratings", made)
    return {
        "prompt": as_text(rollout.prompt),
        "steps": labelled.steps,
        "ratings": ratings,
        "human_steps": rollout.extra.get("human_steps", []),
        "first_error": ratings.index(-1) if -1 in ratings else -1,
        "pred": rollout.pred,
    }


PLUGIN = PRM800KSolutions
