"""What a file format of another project must be (`Format`): its rows to rollouts, and rollouts to its rows.

A format is a frozen dataclass: its fields are its options, with defaults. What a row says that has a column of ours
goes there; steps go to `extra["steps"]` (texts that are scored as given), their labels to `extra["step_labels"]` (true,
false, or null where a step has none) and the first wrong one to `extra["first_error"]` (0-based; null where there is
none); every other column is carried along in `extra`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from freeprm.io.jsonl import Row, Source
from freeprm.types import Group, Rollout


class Written(NamedTuple):
    """The rows made, and how many of what could not be said in this format, by reason."""

    rows: list[Row]
    skipped: Counter[str]


class Format(Protocol):
    """A file format of another project."""

    def recognises(self, row: Row) -> bool:
        """Whether a row looks like one of this format; at most one format says so of a row."""
        ...

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The rollouts of one row. `sample_idx` counts inside the row; the reader numbers them on across rows.

        Raises:
            RecordError: the row is broken; names the file, the line, the field, and what was expected.
        """
        ...

    def write(self, groups: Sequence[Group]) -> Written:
        """Rows of this format.

        Raises:
            DataError: the rollouts lack throughout what the format is about; says which column, and what makes it.
        """
        ...
