from math import log

import pytest

from freeprm.objectives.ce import CE


def test_ce_is_the_binary_cross_entropy_of_the_sigmoid_reward(batch_of):
    # sigmoid(log 3) = 3/4: right costs -log(3/4), wrong -log(1/4). Rewards are sums: log 2 + log 1.5 = log 3.
    losses = CE().losses(batch_of([[log(3)], [log(2), log(1.5)]], [True, False]))
    assert losses.tolist() == pytest.approx([log(4 / 3), log(4)])


def test_ce_of_an_untrained_policy_is_log_two(batch_of):
    assert CE().losses(batch_of([[0.0], [0.0]], [True, False])).tolist() == pytest.approx([log(2), log(2)])


def test_ce_of_a_confident_mistake_is_its_reward_not_infinity(batch_of):
    # -log(1 - sigmoid(1000)) = log(1 + e^1000) = 1000; log(1 - sigmoid) in floating point would be log(0).
    assert CE().losses(batch_of([[1000.0]], [False])).item() == pytest.approx(1000.0)
