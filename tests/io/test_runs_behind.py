import threading
from collections.abc import Callable, Iterable

import pytest

from freeprm.io.runs import behind
from patience import PATIENCE


class Event(threading.Event):
    """One that fails a test rather than to wait for ever."""

    def awaited(self) -> bool:
        return self.wait(timeout=PATIENCE)


def hand_over(
    do: Callable[[int], None], items: Iterable[int], given: list[int], *, then: BaseException | None = None,
    when: Event | None = None,
) -> None:  # fmt: skip
    """Give items to be done behind, note which were taken, and then fail."""
    with behind(do) as give:
        for item in items:
            give(item)
            given.append(item)
        assert when is None or when.awaited()
        if then is not None:
            raise then


def test_behind_does_everything_in_order_before_the_block_is_left():
    done: list[int] = []
    with behind(done.append) as give:
        for item in range(20):
            give(item)
    assert done == list(range(20))


def test_behind_lets_the_caller_go_on():
    begun, go_on, done = Event(), Event(), []

    def do(item: int) -> None:
        begun.set()
        assert go_on.awaited()
        done.append(item)

    with behind(do) as give:
        give(1)
        assert begun.awaited()
        assert done == []
        go_on.set()
    assert done == [1]


def test_an_error_behind_is_raised_once_by_the_next_call_and_ends_the_work():
    done: list[int] = []

    def do(item: int) -> None:
        if item == 1:
            raise OSError("disk full")
        done.append(item)

    given: list[int] = []
    with pytest.raises(OSError, match="disk full") as error:
        hand_over(do, range(5), given)
    assert (given, done) == ([0, 1], [0])
    assert error.value.__context__ is None


def test_an_error_behind_of_the_last_item_is_raised_at_the_end():
    given: list[int] = []
    with pytest.raises(ZeroDivisionError):
        hand_over(lambda item: 1 // item, [1, 0], given)
    assert given == [1, 0]


def test_an_interrupt_behind_is_one_for_the_caller():
    def do(item: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hand_over(do, [1], [])


def test_an_interrupt_of_the_caller_waits_for_what_was_begun():
    begun, done = Event(), []

    def do(item: int) -> None:
        begun.set()
        done.append(item)

    with pytest.raises(KeyboardInterrupt):
        hand_over(do, [1], [], then=KeyboardInterrupt(), when=begun)
    assert done == [1]


def test_the_callers_error_hides_that_of_what_was_begun():
    begun = Event()

    def do(item: int) -> None:
        begun.set()
        raise OSError("disk full")

    with pytest.raises(ValueError, match="ours"):
        hand_over(do, [1], [], then=ValueError("ours"), when=begun)
