"""The work of a stage in this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from freeprm.executors.base import Item, Result, Worker


@dataclass(frozen=True, kw_only=True)
class Local:
    """One worker, here."""

    remote: ClassVar[bool] = False
    block: ClassVar[None] = None

    def run(self, make: Callable[[], Worker[Item, Result]], blocks: Sequence[Sequence[Item]]) -> Iterator[Result]:
        """See `Executor`; blocks in order."""
        if not blocks:
            return
        worker = make()
        for block in blocks:
            yield from worker(block)


PLUGIN = Local
