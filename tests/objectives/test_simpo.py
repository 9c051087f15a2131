from math import log

import pytest

from freeprm.objectives.simpo import SimPO


def test_simpo_compares_rewards_a_token_beyond_the_margin(batch_of):
    # 2 log 6 / 2 - 3 log 2 / 3 = log 3; without margin -log(3/4), with margin log 3 -log(1/2).
    batch = batch_of([[log(6), log(6)], [log(2), log(2), log(2)]], [True, False])
    assert SimPO(gamma=0.0).losses(batch).item() == pytest.approx(log(4 / 3))
    assert SimPO(gamma=log(3)).losses(batch).item() == pytest.approx(log(2))


def test_simpo_ignores_a_response_repeated_in_length(batch_of):
    labels = [True, False]
    short = SimPO().losses(batch_of([[0.3, -0.1], [0.2]], labels)).item()
    long = SimPO().losses(batch_of([[0.3, -0.1, 0.3, -0.1], [0.2, 0.2, 0.2]], labels)).item()
    assert short == pytest.approx(long)
