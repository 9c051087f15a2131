"""ProcessBench: the steps of a response with the index of the first wrong one.

    {"id", "generator", "problem", "steps": [text], "final_answer_correct": bool, "label": -1 or a step's index}

The same rows with `step_scores` (and `scorer`) added are read and written as well. A response is its steps joined by
blank lines; `correct` is final_answer_correct, and label is `extra["first_error"]`, null for -1.

Source: Zheng et al. 2024, arXiv:2412.06559.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from freeprm.core.step_labels import judged_steps
from freeprm.errors import RecordError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import COLUMNS, Fields
from freeprm.io.conversations import as_text
from freeprm.io.files import read_rows
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_COLUMNS = ("id", "problem", "steps", "final_answer_correct", "label")
_BETWEEN = "\n\n"


@dataclass(frozen=True, kw_only=True)
class ProcessBench:
    """A response a row."""

    def recognises(self, row: Row) -> bool:
        """Whether ProcessBench's columns are there."""
        return row.keys() >= set(_COLUMNS)

    def read(self, row: Row, source: Source) -> Iterator[Rollout]:
        """The rollout of one row.

        Raises:
            RecordError: names the file, the entry, the field, and what was expected.
        """
        fields = Fields(row, source)
        steps = fields.texts("steps")
        expected = "-1 for no error, or the index of one of the {count} steps"
        label = fields.get("label", _index_below(len(steps)), expected=expected, count=len(steps))
        yield Rollout(
            problem_id=fields.text("id"),
            sample_idx=0,
            prompt=fields.text("problem"),
            response=_BETWEEN.join(steps),
            correct=fields.get("final_answer_correct", _boolean, expected="true or false"),
            scorer=fields.text("scorer") if fields.has("scorer") else None,
            step_scores=_step_scores(fields, len(steps)),
            extra={
                "steps": steps,
                "first_error": None if label == -1 else label,
                **fields.others(*_COLUMNS, "step_scores", "scorer"),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row a response whose first error and outcome are known; the id tells the samples of a problem apart.

        Raises:
            DataError: none of the responses is one; says why.
        """
        needs = "responses with `correct` and `step_labels` or `first_error`, as problems of the embedded world have"
        return write_each(_alone(groups), _row, needs=needs)


PLUGIN = ProcessBench


def is_processbench(path: Path) -> bool:
    """Whether the first row of a file or folder has ProcessBench's columns.

    Raises:
        RecordError: the path does not exist, or is not readable as rows.
    """
    return any(isinstance(row, dict) and PLUGIN().recognises(row) for _, row in islice(read_rows(path), 1))


def read_processbench(path: Path) -> list[Rollout]:
    """Rollouts from a file in ProcessBench's format, where every id stands once for each scorer.

    Raises:
        RecordError: names the file, the entry, the field, and what was expected.
    """
    rollouts: list[Rollout] = []
    seen: dict[tuple[str, str | None], Source] = {}
    for source, row in read_rows(path):
        if isinstance(row, RecordError):
            raise row
        for rollout in PLUGIN().read(row, source):
            key = (rollout.problem_id, rollout.scorer)
            if key in seen:
                raise RecordError(f"{source}: id: {rollout.problem_id!r} is already at {seen[key]}; expected each once")
            seen[key] = source
            rollouts.append(rollout)
    if not rollouts:
        raise RecordError(f"{path}: no record")
    return rollouts


def _alone(groups: Iterable[Group]) -> Iterator[tuple[str, Rollout]]:
    """Each response with an id of its own."""
    for group in groups:
        for rollout in group.rollouts:
            alone = len(group.rollouts) == 1
            yield rollout.problem_id if alone else f"{rollout.problem_id}-{rollout.sample_idx}", rollout


def _row(item: tuple[str, Rollout], skipped: Counter[str]) -> Row:
    own_id, rollout = item
    correct, labelled = judged_steps(rollout)
    error = labelled.first_error
    scores = {} if rollout.step_scores is None else {"step_scores": list(rollout.step_scores)}
    return {
        "id": own_id,
        "generator": rollout.extra.get("generator"),
        "problem": as_text(rollout.prompt),
        "steps": labelled.steps,
        "final_answer_correct": correct,
        "label": -1 if error is None else error,
        **({} if rollout.scorer is None else {"scorer": rollout.scorer}),
        **scores,
    }


def _index_below(count: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < count:
            raise ValueError
        return value

    return convert


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _step_scores(fields: Fields, count: int) -> tuple[float, ...] | None:
    if not fields.has("step_scores"):
        return None
    expected = "{count} finite numbers, one a step"
    convert = COLUMNS["step_scores"].convert
    scores: tuple[float, ...] = fields.get("step_scores", convert, expected=expected, count=count)
    if len(scores) != count:
        raise fields.wrong("step_scores", expected, count=count)
    return scores
