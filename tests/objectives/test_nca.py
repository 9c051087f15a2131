from math import log

import pytest

from freeprm.objectives.nca import NCA


def test_nca_adds_a_pull_to_zero_on_both_responses(batch_of):
    # r_w = log 3: -log(3/4) - 1/2 log(1/4); r_l = log 2: -1/2 log sigmoid(-log 2) = -1/2 log(1/3).
    loss = NCA().losses(batch_of([[log(3)], [log(2)]], [True, False])).item()
    assert loss == pytest.approx(log(4 / 3) + 0.5 * log(4) + 0.5 * log(3))


def test_nca_is_lowest_in_the_right_reward_at_log_two(batch_of):
    # d/dr_w = -(1 - s) + s/2 with s = sigmoid(r_w): zero at s = 2/3, r_w = log 2.
    batch = batch_of([[log(2)], [0.0]], [True, False])
    NCA().losses(batch).sum().backward()
    # d/dr_l = s/2 with s = sigmoid(0) = 1/2.
    assert batch.token_rewards.grad.tolist() == pytest.approx([0.0, 0.25], abs=1e-12)
