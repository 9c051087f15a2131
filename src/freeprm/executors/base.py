"""Where the work of a stage is done (`Executor`): in this process, or in many.

A stage divides its work into blocks of items, and says how a worker is made: a worker turns one block into results.
Blocks do not depend on how many workers there are, so neither do the results.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Worker = Callable[[Sequence[Item]], Iterable[Result]]
"""Turns a block of items into results; holds what is dear to load."""


class Executor(Protocol):
    """Does the blocks of a stage. A frozen dataclass: its fields are its options."""

    @property
    def remote(self) -> bool:
        """The work is done elsewhere: a stage divides all of it into blocks, and loads no model itself."""
        ...

    @property
    def block(self) -> int | None:
        """Items that a block should have; None where the stage decides."""
        ...

    def run(self, make: Callable[[], Worker[Item, Result]], blocks: Sequence[Sequence[Item]]) -> Iterator[Result]:
        """The results of all blocks, as they are finished, in any order.

        Args:
            make: makes a worker, once in every process that works; it, the items and the results can be pickled.
            blocks: the work.

        Raises:
            FreePRMError: what a worker raises, with its message.
        """
        ...
