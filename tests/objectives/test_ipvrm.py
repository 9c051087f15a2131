from math import log

import pytest
import torch

from freeprm.objectives.ce import CE
from freeprm.objectives.ipvrm import IPVRM


def test_ipvrm_holds_every_prefix_against_the_label(batch_of):
    m = 0.8
    # Right: V = (m + log 3, 2m), v = (m + log 3, m): -log sigmoid(v - m) = log(4/3), log 2; their mean.
    # Wrong: V = (0, -2m - 2 log 3), v = (0, -m - log 3): -log(1 - sigmoid(v + m)) = log(1 + e^m), log(4/3).
    batch = batch_of([[m + log(3), m - log(3)], [0.0, -2 * m - 2 * log(3)]], [True, False])
    expected = [(log(4 / 3) + log(2)) / 2, (torch.tensor(m).exp().log1p().item() + log(4 / 3)) / 2]
    assert IPVRM(margin=m).losses(batch).tolist() == pytest.approx(expected)


def test_ipvrm_asks_the_margin_of_both_classes(batch_of):
    # At v = 0 both classes cost -log sigmoid(-log 3) = log 4.
    losses = IPVRM(margin=log(3)).losses(batch_of([[0.0], [0.0]], [True, False]))
    assert losses.tolist() == pytest.approx([log(4), log(4)])


def test_ipvrm_of_one_token_without_margin_is_ce(batch_of):
    batch = batch_of([[1.2], [-0.4]], [True, False])
    assert IPVRM(margin=0.0).losses(batch).tolist() == pytest.approx(CE().losses(batch).tolist())


def test_ipvrm_tells_apart_responses_of_one_sum_by_where_the_reward_lies(batch_of):
    # Both sum to 1; v is (1, 1/2) early and (0, 1/2) late, so the right response does better with the reward early.
    early, late = IPVRM(margin=0.0).losses(batch_of([[1.0, 0.0], [0.0, 1.0]], [True, True])).tolist()
    assert early < late


def test_ipvrm_weighs_a_long_response_like_a_short_one(batch_of):
    losses = IPVRM(margin=0.0).losses(batch_of([[0.5], [0.5] * 7], [True, True]))
    assert losses[0].item() == pytest.approx(losses[1].item())


def test_ipvrm_weighs_early_or_late_prefixes_more(batch_of):
    # Two tokens with v = (0, 1): weights 4/3, 2/3 early and 2/3, 4/3 late; losses log 2 and log(1 + 1/e).
    first, second = log(2), torch.tensor(-1.0).exp().log1p().item()
    batch = batch_of([[0.0, 2.0]], [True])
    early, late = (IPVRM(margin=0.0, emphasis=name).losses(batch).item() for name in ("early", "late"))
    assert early == pytest.approx((4 / 3 * first + 2 / 3 * second) / 2)
    assert late == pytest.approx((2 / 3 * first + 4 / 3 * second) / 2)
