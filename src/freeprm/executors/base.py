"""The Protocol of an executor, which does the work of a stage in this process or in many.

A stage divides its work into blocks of items, and has a function that makes a worker: a worker turns a block into
results. Blocks do not depend on the number of workers, so neither do the results.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Worker = Callable[[Sequence[Item]], Iterable[Result]]
"""A block of items -> results; holds what is expensive to load."""


class Executor(Protocol):
    """Works on the blocks of a stage. A frozen dataclass whose fields are its options."""

    @property
    def remote(self) -> bool:
        """The work is done in other processes: the stage divides all of it into blocks, and loads no model itself."""
        ...

    @property
    def block(self) -> int | None:
        """Items of a block; None to let the stage decide."""
        ...

    def run(self, make: Callable[[], Worker[Item, Result]], blocks: Sequence[Sequence[Item]]) -> Iterator[Result]:
        """The results of all blocks, as they are finished, in any order.

        Args:
            make: makes a worker, once in every process; it, the items and the results must be picklable.
            blocks: the work.

        Raises:
            FreePRMError: raised by a worker.
        """
        ...
