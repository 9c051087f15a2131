"""One thread behind the caller's, which puts the last item away while the caller works on the next.

What lets go of the interpreter gains by it: files, the wait for a GPU. Pure Python does not.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def behind(do: Callable[[Item], None]) -> Iterator[Callable[[Item], None]]:
    """Gives what does something with each item in turn while the caller goes on; all is done when the block is left.

    One item waits at most: a caller that is faster is held up. Where `do` fails, nothing more is done, and its error is
    raised by the next call or at the block's end. An error, or an interrupt, of the block itself comes out when what
    was begun is done.
    """
    pending: list[Future[None]] = []

    def give(item: Item) -> None:
        if pending:
            pending.pop().result()
        pending.append(pool.submit(do, item))

    with ThreadPoolExecutor(1) as pool:
        yield give
        if pending:
            pending.pop().result()
