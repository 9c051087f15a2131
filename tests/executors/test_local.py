"""The executor of this process: one worker, blocks in order, nothing before it is asked for."""

from collections.abc import Callable, Iterator, Sequence

from freeprm.executors.local import Local
from freeprm.io.plugins import load


def test_one_worker_does_the_blocks_in_order_as_results_are_taken():
    made: list[str] = []
    seen: list[int] = []

    def make() -> Callable[[Sequence[int]], Iterator[int]]:
        made.append("worker")

        def work(block: Sequence[int]) -> Iterator[int]:
            for item in block:
                seen.append(item)
                yield item * item

        return work

    results = Local().run(make, [[1, 2], [3]])
    assert (made, seen) == ([], [])
    assert (next(results), seen) == (1, [1])
    assert list(results) == [4, 9]
    assert made == ["worker"]


def test_no_worker_is_made_where_there_is_nothing_to_do():
    def make() -> Callable[[Sequence[int]], Iterator[int]]:
        raise AssertionError("made")

    assert list(Local().run(make, [])) == []


def test_it_is_found_by_name_and_leaves_the_blocks_to_the_stage():
    assert load("executors", "local") is Local
    assert (Local().remote, Local().block) == (False, None)
