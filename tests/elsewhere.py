"""An executor that behaves as a cluster does, in this process: all is pickled, and the last block comes first."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from freeprm.executors.base import Item, Result, Worker


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Give it to a stage as `elsewhere:Elsewhere`."""

    block: int | None = None
    stops_after: int | None = None
    """Blocks, after which it is interrupted."""

    remote: ClassVar[bool] = True

    def run(self, make: Callable[[], Worker[Item, Result]], blocks: Sequence[Sequence[Item]]) -> Iterator[Result]:
        """See `Executor`."""
        worker = pickle.loads(pickle.dumps(make))()
        for number, block in enumerate(reversed(blocks)):
            if number == self.stops_after:
                raise KeyboardInterrupt
            yield from pickle.loads(pickle.dumps(list(worker(pickle.loads(pickle.dumps(block))))))
