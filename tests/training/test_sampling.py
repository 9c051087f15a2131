import random
from itertools import pairwise

from freeprm.training.sampling import SimilarLengths

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
