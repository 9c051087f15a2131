from dataclasses import replace
from math import exp, log

import pytest

from freeprm.errors import DataError
from freeprm.objectives.kto import KTO


def test_kto_measures_rewards_from_the_reference_point(batch_of):
    # log 6 - log 2 = log 3, sigmoid(log 3) = 3/4: right costs 1/4, wrong 3/4.
    losses = KTO().losses(batch_of([[log(6)], [log(6)]], [True, False], kl=log(2)))
    assert losses.tolist() == pytest.approx([0.25, 0.75])


def test_kto_weighs_the_classes(batch_of):
    objective = KTO(desirable_weight=2.0, undesirable_weight=3.0)
    losses = objective.losses(batch_of([[0.0], [0.0]], [True, False], kl=0.0))
    assert losses.tolist() == pytest.approx([2 * 0.5, 3 * 0.5])


def test_kto_takes_a_negative_estimate_of_the_divergence_as_zero(batch_of):
    # A divergence is never negative, its estimate from a few samples may be.
    rewards, labels = [[log(3)], [log(3)]], [True, False]
    assert KTO().losses(batch_of(rewards, labels, kl=-5.0)).tolist() == pytest.approx([0.25, 0.75])


def test_kto_keeps_small_losses_exact(batch_of):
    # 1 - sigmoid(40) = 1 / (1 + e^40), about 4.2e-18; 1 - (a float64 next to 1) would be 0.
    losses = KTO().losses(batch_of([[40.0], [-40.0]], [True, False], kl=0.0))
    assert losses.tolist() == pytest.approx([1 / (1 + exp(40))] * 2, rel=1e-9, abs=0.0)


def test_kto_takes_no_gradient_through_the_reference_point(batch_of):
    batch = batch_of([[1.0], [2.0]], [True, True])
    KTO().losses(replace(batch, kl=batch.rewards.mean())).sum().backward()
    # The gains are -1/2 and 1/2, where the sigmoid has one slope; through the mean the gradients would cancel to 0.
    slope = exp(0.5) / (1 + exp(0.5)) ** 2
    assert batch.token_rewards.grad.tolist() == pytest.approx([-slope, -slope])


def test_kto_refuses_a_batch_without_divergence(batch_of):
    with pytest.raises(DataError, match="no kl"):
        KTO().losses(batch_of([[0.0]], [True]))
