"""Advantages, held against numbers by hand."""

import pytest
import torch

from freeprm.rl.advantages import baseline, candidate_loss, leave_one_out, mean_rewards, process_returns, whitened

NAN = float("nan")


def test_an_outcome_stands_against_the_mean_of_the_others():
    found = leave_one_out(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 3)
    assert found.tolist() == pytest.approx([1.0, -0.5, -0.5, 0.0, 0.0, 0.0])


def test_an_outcome_that_is_not_known_is_nobodys_baseline():
    assert leave_one_out(torch.tensor([1.0, NAN, 0.0, NAN, NAN, 1.0]), 3).tolist() == [1.0, 0.0, -1.0, 0.0, 0.0, 0.0]
    assert baseline(torch.tensor([1.0, NAN, 0.0]), 3).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_process_returns_are_sums_of_what_is_left_above_the_others_mean():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    means = mean_rewards(rewards, mask)
    assert means.tolist() == [2.0, 2.0]
    found = process_returns(rewards, mask, baseline(means, 2))
    assert found.tolist() == [[0.0, 1.0, 1.0], [0.0, -2.0, 0.0]]
    discounted = process_returns(rewards, mask, baseline(means, 2), gamma=0.5)
    assert discounted.tolist() == [[-1 + 0.5 * 0.5, 0.5, 1.0], [2 - 0.5 * 2, -2.0, 0.0]]


def test_padding_changes_no_return():
    rewards, mask = torch.randn(4, 5), torch.ones(4, 5, dtype=torch.bool)
    wide = torch.cat([rewards, torch.full((4, 3), 7.0)], dim=1)
    padded = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
    assert mean_rewards(wide, padded).tolist() == pytest.approx(mean_rewards(rewards, mask).tolist())
    for gamma in (1.0, 0.9):
        expected = process_returns(rewards, mask, torch.zeros(4), gamma=gamma)
        found = process_returns(wide, padded, torch.zeros(4), gamma=gamma)
        torch.testing.assert_close(found[:, :5], expected)
        assert not found[:, 5:].any()


def test_whitened_advantages_have_mean_0_and_deviation_1_over_tokens():
    values = torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0]])
    mask = values < 99
    found = whitened(values, mask)
    assert found[mask].tolist() == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5], abs=1e-5)
    assert not found[~mask].any()
    # Two processes that hold a row each.
    both = torch.tensor([3.0, 9.0, 35.0], dtype=torch.double)  # tokens, their sum, and that of their squares
    apart = [whitened(values[row][None], mask[row][None], total=lambda own: both) for row in range(2)]
    torch.testing.assert_close(torch.cat(apart), found)


def test_equal_returns_teach_nothing():
    assert not whitened(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)).any()
    assert not whitened(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)).any()


def test_the_loss_over_candidates_is_their_clipped_advantage_by_probability():
    old = torch.tensor([[[0.5, 0.25]]]).log()
    advantages = torch.tensor([[[2.0, -1.0]]])
    mask = torch.ones(1, 1, 2, dtype=torch.bool)
    logps = old.clone().requires_grad_()
    loss = candidate_loss(logps, old, advantages, mask, epsilon=0.2)
    assert loss.item() == pytest.approx(-(0.5 * 2.0 - 0.25) / 0.75)
    loss.backward()  # the gradient of a log-probability is minus p * A over the sum of p
    assert logps.grad is not None
    assert logps.grad.flatten().tolist() == pytest.approx([-1.0 / 0.75, 0.25 / 0.75])
    far = (old + 1.0).requires_grad_()
    found = candidate_loss(far, old, advantages, mask, epsilon=0.2)
    e = float(torch.tensor(1.0).exp())
    assert found.item() == pytest.approx(-(0.5 * 1.2 * 2 - 0.25 * e) / 0.75, rel=1e-5)
    one = candidate_loss(old, old, advantages, torch.tensor([[[True, False]]]), epsilon=0.2)
    assert float(one) == pytest.approx(-2.0)
