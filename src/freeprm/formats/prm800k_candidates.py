"""PRM800K cut into single judgements ("stepwise critic"): the steps so far, a candidate for the next, and its rating.

    {"instruction": text, "responses": [text], "next_response": text, "answer": text, "is_human_response": bool,
     "is_solution": bool, "is_preferred_response": bool, "rating": -1|0|1|null}

Read: each row is a rollout that ends with the candidate; only its last step has a label: 1 true, -1 false, 0 as
`neutral` says; null true where a labeler wrote it, else none. Of the steps before it the row says nothing but that
they were taken. The response is the steps, a line break between two, and `truncated` unless it `is_solution`; the
outcome is not said. Rows with the same instruction are responses to one problem, whose id is a hash of it. Every other
column is carried along, `answer` as `source_answer`.

Written: a row of each labelled step of each rollout; what is not carried along is null. Lost are outcomes, gold
answers, steps without a label behind the last one with one, and every other column.

Source: Lightman et al. 2023, arXiv:2305.20050; Birchlabs/openai-prm800k-stepwise-critic.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from freeprm.core.step_labels import first_error, labelled_steps
from freeprm.errors import DataError
from freeprm.formats.base import Written, rollouts_of
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_CARRIED = ("is_human_response", "is_preferred_response", "error_reason")


@dataclass(frozen=True, kw_only=True)
class PRM800KCandidates:
    """Candidate steps, each with its rating."""

    neutral: bool | None = True
    """The label of a step rated 0: true, as PRM800K's paper counts it; false, or none for no label."""

    def recognises(self, row: Row) -> bool:
        """Has `instruction`, `responses`, `next_response` and `rating`."""
        return {"instruction", "responses", "next_response", "rating"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one rollout of a row.

        Raises:
            RecordError: a field is absent or of the wrong kind.
        """
        fields = Fields(row, source)
        instruction = fields.text("instruction")
        before = fields.texts("responses") if row.get("responses") != [] else []
        steps = [*before, fields.text("next_response")]
        labels = [*[None] * len(before), self._label(fields)]
        yield Rollout(
            problem_id=id_from(instruction),
            sample_idx=0,
            prompt=instruction,
            response="\n".join(step.strip() for step in steps),
            truncated=not (fields.has("is_solution") and fields.label("is_solution")),
            extra={
                **fields.others("instruction", "responses", "next_response", "is_solution"),
                "steps": steps,
                "step_labels": labels,
                "first_error": first_error(labels),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each labelled step.

        Raises:
            DataError: no step is labelled.
        """
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

    def _label(self, fields: Fields) -> bool | None:
        rating = fields.get("rating", lambda value: value, expected="-1, 0, 1 or null")
        if isinstance(rating, bool) or rating not in (-1, 0, 1, None):
            raise fields.wrong("rating", "-1, 0, 1 or null")
        if rating is None:
            return True if fields.row.get("is_human_response") else None
        return self.neutral if rating == 0 else rating == 1


def _as_read(rollout: Rollout) -> Row:
    """The row that a rollout came from."""
    *before, last = labelled_steps(rollout).steps
    return _row(rollout, before, last, rollout.extra["rating"], is_solution=not rollout.truncated)


def _rows(rollout: Rollout) -> Iterator[Row]:
    labelled = labelled_steps(rollout)
    for index, (step, label) in enumerate(zip(labelled.steps, labelled.labels, strict=True)):
        if label is not None:
            is_last = index == len(labelled.steps) - 1
            yield _row(
                rollout, labelled.steps[:index], step, 1 if label else -1, is_solution=is_last and bool(rollout.correct)
            )


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
