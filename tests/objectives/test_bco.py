from math import log

import pytest

from freeprm.objectives.bco import BCO
from freeprm.objectives.ce import CE


def test_bco_shifts_rewards_by_the_middle_of_the_class_means(batch_of):
    # Right: 2a and 4a, mean 3a; wrong: -a; middle a. With a = log 3 the shifted rewards are a, 3a and -2a:
    # right costs log(1 + 1/3) and log(1 + 1/27), wrong log(1 + 1/9). The mean of all rewards, 5a/3, is not used.
    a = log(3)
    losses = BCO().losses(batch_of([[2 * a], [4 * a], [-a]], [True, True, False]))
    assert losses.tolist() == pytest.approx([log(4 / 3), log(28 / 27), log(10 / 9)])


def test_bco_takes_no_gradient_through_the_shift(batch_of):
    # Both shifted rewards are 0, so the gradients are -1/2 and 1/2; through the shift they would be halved.
    batch = batch_of([[1.0], [1.0]], [True, False])
    BCO().losses(batch).sum().backward()
    assert batch.token_rewards.grad.tolist() == pytest.approx([-0.5, 0.5])


def test_bco_of_one_class_shifts_by_its_mean(batch_of):
    # Rewards 0 and 2 log 3 about their mean: -log 3 and log 3.
    losses = BCO().losses(batch_of([[0.0], [2 * log(3)]], [True, True]))
    assert losses.tolist() == pytest.approx([log(4), log(4 / 3)])


def test_bco_with_a_fixed_shift_has_independent_items(batch_of):
    objective = BCO(delta=0.7)
    alone = objective.losses(batch_of([[1.0]], [True])).item()
    assert objective.losses(batch_of([[1.0], [9.0]], [True, False]))[0].item() == pytest.approx(alone)


def test_bco_with_shift_zero_is_ce(batch_of):
    batch = batch_of([[1.0, 0.5], [-2.0], [0.3]], [True, False, False])
    assert BCO(delta=0.0).losses(batch).tolist() == pytest.approx(CE().losses(batch).tolist())
