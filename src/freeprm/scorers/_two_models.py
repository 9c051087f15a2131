"""Policy and reference at work: side by side in two threads where each has a device of its own, else one by one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Lock
from typing import TypeVar

from torch import nn

from freeprm.models.batching import Advance as Advance

First = TypeVar("First")
Second = TypeVar("Second")


class _EndedError(Exception):
    """Ends a pass because the other one has failed."""


def are_apart(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models are on different devices."""
    return next(one.parameters()).device != next(other.parameters()).device


def both(
    first: Callable[[Advance], First], second: Callable[[Advance], Second], *, advance: Advance, at_once: bool
) -> tuple[First, Second]:
    """What two passes give; each is called with what it must tell of every batch.

    Args:
        first: runs in this thread.
        second: runs after it, or in a thread of its own.
        advance: told of every batch, by one pass at a time.
        at_once: run both at the same time. Where one fails or is interrupted, the other ends after its batch.
    """
    if not at_once:
        return first(advance), second(advance)
    ended, alone = Event(), Lock()

    def tell(n_tokens: int, n_responses: int) -> None:
        if ended.is_set():
            raise _EndedError
        with alone:
            advance(n_tokens, n_responses)

    def end_if_failed(done: Future[Second]) -> None:
        if done.exception() is not None:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(second, tell)
        other.add_done_callback(end_if_failed)
        try:
            mine = first(tell)
        except _EndedError:
            other.result()  # raises what ended this pass
            raise
        except BaseException:
            ended.set()
            raise
        return mine, other.result()
