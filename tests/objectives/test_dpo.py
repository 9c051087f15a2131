from math import log

import pytest
import torch

from freeprm.objectives.dpo import DPO


def test_dpo_is_minus_log_sigmoid_of_the_difference(batch_of):
    # log 6 - log 2 = log 3, sigmoid(log 3) = 3/4.
    assert DPO().losses(batch_of([[log(6)], [log(2)]], [True, False])).item() == pytest.approx(log(4 / 3))


def test_dpo_of_equal_rewards_is_log_two(batch_of):
    assert DPO().losses(batch_of([[1.3], [1.3]], [True, False])).item() == pytest.approx(log(2))


def test_dpo_ignores_a_constant_added_to_both_rewards(batch_of):
    labels = [True, False, False]
    plain = DPO().losses(batch_of([[0.2], [1.0], [-0.5]], labels))
    raised = DPO().losses(batch_of([[7.2], [8.0], [6.5]], labels))
    assert torch.allclose(plain, raised, atol=1e-12)


def test_dpo_takes_every_pair_of_a_group_in_order_of_chosen_then_rejected(batch_of):
    losses = DPO().losses(batch_of([[log(3)], [0.0], [log(6)], [log(2)]], [True, False, True, False]))
    # Differences: log 3 - 0, log 3 - log 2, log 6 - 0, log 6 - log 2; -log sigmoid(log a) = log((1 + a) / a).
    assert losses.tolist() == pytest.approx([log(4 / 3), log(5 / 3), log(7 / 6), log(4 / 3)])
