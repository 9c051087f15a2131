"""What a file format of another project must be (`Format`): its rows to rollouts, and rollouts to its rows.

A format is a frozen dataclass: its fields are its options, with defaults. What a row says that has a column of ours
goes there; steps go to `extra["steps"]` (texts that are scored as given), their labels to `extra["step_labels"]` (true,
false, or null where a step has none) and the first wrong one to `extra["first_error"]` (0-based; null where there is
none); every other column is carried along in `extra`. docs/data.md shows a row of each format, and says what is lost
in writing.
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
"""What formats of labelled steps need."""


class Written(NamedTuple):
    """The rows made, and how many of what could not be said in this format, by reason."""

    rows: list[Row]
    skipped: Counter[str]


class Format(RowFormat, Protocol):
    """A file format of another project."""

    def write(self, groups: Sequence[Group]) -> Written:
        """Rows of this format.

        Raises:
            DataError: the rollouts lack throughout what the format is about; says which column, and what makes it.
        """
        ...


def write_each(items: Iterable[T], row_of: Callable[[T, Counter[str]], Row], *, needs: str) -> Written:
    """A row of each item.

    Args:
        items: rollouts, or what else has a row of its own in the format.
        row_of: the row of an item; raises DataError, with equal messages for equal reasons, where the format cannot say
            it, and counts in its second argument what it leaves out of those that it can.
        needs: what the format is about and what makes it, for the message where no item has it.

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
    """What `extra` says of steps with labels."""
    return {"steps": list(steps), "step_labels": list(labels), "first_error": first_error(labels)}


def joined(steps: Iterable[str]) -> str:
    """The response that steps make, a line break between two."""
    return "\n".join(step.strip() for step in steps)
