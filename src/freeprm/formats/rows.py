"""Our own rows, one rollout each, which every stage reads and writes; docs/rows.md describes the columns."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from freeprm.formats.base import Written
from freeprm.io.rollouts import rollout_of, rollout_row
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_NEEDED = frozenset({"problem_id", "prompt", "response"})


@dataclass(frozen=True, kw_only=True)
class RowsFormat:
    """Has everything of a rollout, so nothing is lost in writing; files are read by `read_rollouts`."""

    def recognises(self, row: Row) -> bool:
        """Whether a problem's id, its prompt and a response are there."""
        return row.keys() >= _NEEDED

    def read(self, row: Row, source: Source) -> Iterator[Rollout]:
        """The rollout of a single row, with `sample_idx` 0 by default."""
        yield rollout_of(row, source)

    def write(self, groups: Sequence[Group]) -> Written:
        """A row a rollout."""
        return Written([rollout_row(rollout) for group in groups for rollout in group.rollouts], Counter())


PLUGIN = RowsFormat
