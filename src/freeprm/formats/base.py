"""The Protocol of another project's file format (`Format`): its rows to rollouts, and rollouts to its rows.

A format is a frozen dataclass whose fields are its options, with defaults. Values that have a column of ours go there;
steps go to `extra["steps"]` (texts that are scored unchanged), their labels to `extra["step_labels"]` (true, false or
null) and the first wrong one to `extra["first_error"]` (0-based or null); every other column is carried along in
`extra`. docs/data.md shows a row of each format, and what is lost in writing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from freeprm.core.step_labels import first_error
from freeprm.errors import DataError
from freeprm.io.rollouts import RowFormat
from freeprm.io.rows import Row
from freeprm.types import Group, Rollout

T = TypeVar("T")
STEP_LABELS = "step labels (`step_labels` or `first_error`)"
"""The needs of formats of labelled steps."""


class Written(NamedTuple):
    """The rows, and counts of what the format cannot hold, by reason."""

    rows: list[Row]
    skipped: Counter[str]


class Format(RowFormat, Protocol):
    """A file format of another project."""

    def write(self, groups: Sequence[Group]) -> Written:
        """Rows of this format.

        Raises:
            DataError: all rollouts lack what the format needs; says which column, and what makes it.
        """
        ...


def write_each(items: Iterable[T], row_of: Callable[[T, Counter[str]], Row], *, needs: str) -> Written:
    """A row for each item.

    Args:
        items: rollouts, or other items with a row of their own.
        row_of: the row of an item; raises DataError, with equal messages for equal reasons, if the format cannot hold
            it, and counts what it leaves out of an item in its second argument.
        needs: of the format, for the message if there is no row.

    Raises:
        DataError: there is no row.
    """
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    for item in items:
        try:
            rows.append(row_of(item, skipped))
        except DataError as error:
            skipped[str(error)] += 1
    if not rows:
        reasons = "; ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(f"nothing can be written in this format ({reasons or 'there is nothing'}); it needs {needs}")
    return Written(rows, +skipped)


def rollouts_of(groups: Iterable[Group]) -> Iterator[Rollout]:
    """The rollouts of all groups."""
    return (rollout for group in groups for rollout in group.rollouts)


def step_columns(steps: Sequence[str], labels: Sequence[bool | None]) -> Row:
    """The columns of labelled steps in `extra`."""
    return {"steps": list(steps), "step_labels": list(labels), "first_error": first_error(labels)}


def joined(steps: Iterable[str]) -> str:
    """The response made of steps, one on a line."""
    return "\n".join(step.strip() for step in steps)
