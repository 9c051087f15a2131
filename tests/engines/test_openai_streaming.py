"""Asynchronous work behind an iterator."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from freeprm.engines.openai.streaming import streamed
from patience import PATIENCE


async def three(give: Callable[[int], None]) -> None:
    for number in range(3):
        give(number)
        await asyncio.sleep(0)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_results_come_in_order_and_the_thread_is_gone():
    assert list(streamed(three)) == [0, 1, 2]
    assert "freeprm-openai" not in threads()


def test_results_before_an_error_are_given_and_then_the_error():
    async def fails(give: Callable[[int], None]) -> None:
        await three(give)
        raise ValueError("late")

    numbers = streamed(fails)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="late"):
        next(numbers)
    assert "freeprm-openai" not in threads()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that was started in the background ignores interrupts, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_it_waits_cancels_the_work(interruptible: None):
    cancelled = threading.Event()

    async def endless(give: Callable[[int], None]) -> None:
        give(0)
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    numbers = streamed(endless)
    next(numbers)
    threading.Timer(0.2, signal_main).start()
    with pytest.raises(KeyboardInterrupt):
        next(numbers)
    assert cancelled.is_set()
    assert "freeprm-openai" not in threads()


def signal_main() -> None:
    os.kill(os.getpid(), signal.SIGINT)
