from dataclasses import replace
from math import log

import pytest

from freeprm.errors import DataError
from freeprm.objectives.base import means_of
from freeprm.objectives.bco import BCO
from freeprm.objectives.ce import CE


def test_bco_shifts_rewards_by_the_middle_of_the_class_means(batch_of):
    # Right: 2a and 4a, mean 3a; wrong: -a; middle a. With a = log 3 the shifted rewards are a, 3a and -2a:
    # right costs log(1 + 1/3) and log(1 + 1/27), wrong log(1 + 1/9). The mean of all rewards, 5a/3, is not used.
    a = log(3)
    batch = batch_of([[2 * a], [4 * a], [-a]], [True, True, False])
    means = means_of(BCO().totals(batch))
    assert means.tolist() == pytest.approx([3 * a, -a])
    losses = BCO().losses(replace(batch, means=means))
    assert losses.tolist() == pytest.approx([log(4 / 3), log(28 / 27), log(10 / 9)])


def test_bco_takes_no_gradient_through_the_shift(batch_of):
    # Both shifted rewards are 0, so the gradients are -1/2 and 1/2; through the shift they would be halved.
    batch = batch_of([[1.0], [1.0]], [True, False])
    BCO().losses(replace(batch, means=means_of(BCO().totals(batch)))).sum().backward()
    assert batch.token_rewards.grad.tolist() == pytest.approx([-0.5, 0.5])


@pytest.mark.parametrize("label", [True, False])
def test_bco_of_one_class_saturates(batch_of, label):
    # Rewards of 40 in favour of the class, whose other mean is not known: 0. Shifted by 20, a loss of e^-20; shifted by
    # their own mean they would cost log 2, however large.
    reward = 40.0 if label else -40.0
    batch = batch_of([[reward], [reward]], [label, label])
    losses = BCO().losses(replace(batch, means=means_of(BCO().totals(batch))))
    assert losses.tolist() == pytest.approx([2.0611536e-9] * 2)


def test_bco_refuses_a_batch_without_means(batch_of):
    with pytest.raises(DataError, match="no means"):
        BCO().losses(batch_of([[0.0]], [True]))


def test_bco_with_a_fixed_shift_needs_no_means(batch_of):
    # 1 - 0.7 = 0.3 for the right response.
    assert not BCO(delta=0.7).needs_means
    batch = batch_of([[1.0], [9.0]], [True, False])
    assert BCO(delta=0.7).losses(batch)[0].item() == pytest.approx(log(1 + 2.718281828459045**-0.3))


def test_bco_with_shift_zero_is_ce(batch_of):
    batch = batch_of([[1.0, 0.5], [-2.0], [0.3]], [True, False, False])
    assert BCO(delta=0.0).losses(batch).tolist() == pytest.approx(CE().losses(batch).tolist())
