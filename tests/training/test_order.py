"""The order of training, and its division among processes: laws over drawn lengths."""

import random
from itertools import pairwise, product
from statistics import mean

import pytest
from torch.utils.data import SequentialSampler

from freeprm.training.order import Share, SimilarLengths, balanced

LENGTHS = [random.Random(index).randrange(50, 200) for index in range(203)]


def order(epoch: int = 0, seed: int = 0) -> list[int]:
    sampler = SimilarLengths(LENGTHS, step_size=8, seed=seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(LENGTHS)
    return list(sampler)


def padded(indices: list[int]) -> int:
    """Tokens of steps of 8 padded to their longest."""
    steps = [indices[start : start + 8] for start in range(0, len(indices), 8)]
    return sum(len(step) * max(LENGTHS[index] for index in step) for step in steps)


def test_every_example_comes_once():
    assert sorted(order()) == list(range(len(LENGTHS)))


def test_steps_hold_examples_of_similar_length():
    at_random = list(range(len(LENGTHS)))
    random.Random(0).shuffle(at_random)
    waste, random_waste = (padded(one) / sum(LENGTHS) - 1 for one in (order(), at_random))
    assert waste < 0.5 * random_waste


def test_the_order_depends_on_seed_and_epoch_alone():
    assert order() == order()
    assert len({tuple(order(epoch, seed)) for epoch in (0, 1) for seed in (0, 1)}) == 4


def test_steps_are_not_in_order_of_length():
    longest = [max(LENGTHS[index] for index in order()[start : start + 8]) for start in range(0, 200, 8)]
    rises = sum(two > one for one, two in pairwise(longest))
    assert 5 < rises < 20


WAYS = list(product((2, 3, 8), (1, 2), (1, 4)))


def shares(n_processes: int, batch_size: int, n_batches: int, *, n_steps_done: int = 0, drop_last: bool = False):
    """By process, its batches of an epoch over `LENGTHS`, in the order of `order`."""
    size = n_processes * batch_size * n_batches
    return [
        Share(
            SimilarLengths(LENGTHS, step_size=size, seed=0), LENGTHS, batch_size=batch_size, n_batches=n_batches,
            process=process, n_processes=n_processes, n_steps_done=lambda: n_steps_done, drop_last=drop_last,
        )
        for process in range(n_processes)
    ]  # fmt: skip


def steps_of(batches: list[list[int]], n_batches: int) -> list[list[int]]:
    """The examples of each step of one process."""
    starts = range(0, len(batches), n_batches)
    return [[index for batch in batches[start : start + n_batches] for index in batch] for start in starts]


@pytest.mark.parametrize(("n_processes", "batch_size", "n_batches"), WAYS)
def test_processes_read_together_what_the_order_says_of_each_step(n_processes, batch_size, n_batches):
    made = [list(share) for share in shares(n_processes, batch_size, n_batches)]
    size = n_processes * batch_size * n_batches
    whole = list(SimilarLengths(LENGTHS, step_size=size, seed=0))
    together = zip(*(steps_of(batches, n_batches) for batches in made), strict=True)
    for start, parts in zip(range(0, len(whole), size), together, strict=True):
        assert sorted(index for part in parts for index in part) == sorted(whole[start : start + size])
    assert {len(batches) for batches in made} == {len(share) for share in shares(n_processes, batch_size, n_batches)}
    assert all(len(batch) <= batch_size for batches in made for batch in batches)


@pytest.mark.parametrize(("n_processes", "batch_size", "n_batches"), WAYS)
def test_processes_read_about_as_many_tokens_in_each_step(n_processes, batch_size, n_batches):
    size = n_processes * batch_size * n_batches
    at_random = random.Random(0).sample(range(len(LENGTHS)), len(LENGTHS))
    ratios = {"dealt in order": list[float](), "balanced": list[float]()}
    for start in range(0, len(LENGTHS) - size, size):
        step = at_random[start : start + size]
        dealt = [step[part::n_processes] for part in range(n_processes)]
        parts = balanced(step, LENGTHS, n_parts=n_processes, size=batch_size * n_batches)
        tokens = [[sum(LENGTHS[index] for index in part) for part in division] for division in (dealt, parts)]
        assert max(tokens[1]) <= max(tokens[0])
        for ratio, found in zip(ratios.values(), tokens, strict=True):
            ratio.append(max(found) / min(found))
    before, after = map(mean, ratios.values())
    if batch_size * n_batches == 1:  # one example each: there is nothing to choose
        assert after == before
    else:
        assert after - 1 < 0.4 * (before - 1)


def test_parts_are_bounded_and_may_be_empty():
    assert balanced([0, 1, 2], [9, 1, 1], n_parts=2, size=2) == [[0], [1, 2]]
    assert balanced([0, 1, 2, 3], [9, 1, 1, 1], n_parts=2, size=2) == [[0, 3], [1, 2]]
    assert balanced([0], [9], n_parts=2, size=2) == [[0], []]
    assert balanced([0, 1, 2, 3], [4, 4, 4, 4], n_parts=2, size=2) == [[0, 2], [1, 3]]


def test_a_run_that_is_gone_on_from_has_its_epochs_order():
    n_steps = -(-len(LENGTHS) // 8)
    first, second, third = (list(shares(2, 2, 2, n_steps_done=done)[0]) for done in (0, n_steps, n_steps + 3))
    assert first != second == third


def test_what_does_not_fill_a_batch_everywhere_may_be_left_out():
    made = [list(share) for share in shares(2, 2, 2, drop_last=True)]
    assert all(len(batch) == 2 for batches in made for batch in batches)
    assert sum(map(len, made)) * 2 == len(LENGTHS) // 4 * 4


def test_an_order_without_epochs_is_taken_as_it_is():
    share = Share(
        SequentialSampler(range(5)), [1] * 5, batch_size=1, n_batches=1, process=1, n_processes=2,
        n_steps_done=lambda: 7,
    )  # fmt: skip
    assert list(share) == [[1], [3], []]
