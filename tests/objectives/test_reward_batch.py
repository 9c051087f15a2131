"""`objectives/base.py`: what a batch derives from token rewards, and which responses pair."""

import pytest
import torch

from freeprm.errors import DataError
from freeprm.objectives.base import RewardBatch, mean_by_response, pairs


def test_a_batch_sums_token_rewards_by_response(batch_of):
    batch = batch_of([[1.0, 2.0], [4.0], [-1.0, 0.5, 0.25]], [True, False, True])
    assert batch.rewards.tolist() == [3.0, 4.0, -0.25]
    assert batch.lengths.tolist() == [2, 1, 3]


def test_prefix_values_run_inside_each_response_and_end_at_its_reward(batch_of):
    batch = batch_of([[1.0, 2.0], [4.0], [-1.0, 0.5, 0.25]], [True, False, True])
    assert batch.prefix_values.tolist() == [1.0, 3.0, 4.0, -1.0, -0.5, -0.25]
    assert batch.positions.tolist() == [1, 2, 1, 1, 2, 3]
    ends = batch.lengths.cumsum(0) - 1
    assert torch.equal(batch.prefix_values[ends], batch.rewards)


def test_prefix_values_give_each_token_a_gradient_from_every_later_prefix_of_its_response(batch_of):
    batch = batch_of([[0.0, 0.0, 0.0], [0.0, 0.0]], [True, False])
    batch.prefix_values.sum().backward()
    # Token t of T is in the T - t + 1 prefixes that reach it: 3, 2, 1 and 2, 1.
    assert batch.token_rewards.grad.tolist() == [3.0, 2.0, 1.0, 2.0, 1.0]


def test_float32_prefix_values_are_not_disturbed_by_large_responses_before_them():
    tokens = torch.cat([torch.full((1000,), 1234.5), torch.full((4,), 1e-3)])
    batch = RewardBatch(
        token_rewards=tokens,
        rows=torch.cat([torch.zeros(1000, dtype=torch.int64), torch.ones(4, dtype=torch.int64)]),
        labels=torch.tensor([True, False]),
        groups=torch.zeros(2, dtype=torch.int64),
    )
    # The first response sums to 1.2e6, whose neighbours in float32 are 0.125 apart.
    assert batch.prefix_values[-4:].tolist() == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3], rel=1e-5)


def test_pairs_are_all_right_with_all_wrong_of_their_own_group():
    labels = torch.tensor([True, False, True, False, True])
    groups = torch.tensor([7, 7, 7, 7, 3])  # the last is alone in its group
    chosen, rejected = pairs(labels, groups)
    assert list(zip(chosen.tolist(), rejected.tolist(), strict=True)) == [(0, 1), (0, 3), (2, 1), (2, 3)]


def test_pairs_of_groups_with_one_class_are_none():
    chosen, rejected = pairs(torch.tensor([True, True, False]), torch.tensor([0, 0, 1]))
    assert len(chosen) == len(rejected) == 0


def test_steps_sum_to_their_response_and_their_values_run_to_its_reward(batch_of):
    batch = batch_of([[1.0, 2.0, 4.0], [8.0], [0.5, 0.25]], [True, False, True], steps=[[0, 0, 1], [2], [3, 4]])
    assert batch.step_rows.tolist() == [0, 0, 1, 2, 2]
    assert batch.step_rewards.tolist() == [3.0, 4.0, 8.0, 0.5, 0.25]
    assert batch.step_values.tolist() == [3.0, 7.0, 8.0, 0.5, 0.75]


def test_values_at_places_are_prefix_values_of_their_differences(batch_of):
    # Values 2, -1, 0.5 of one response and -3 of another, each place a token and a step.
    batch = batch_of([[2.0, -3.0, 1.5], [-3.0]], [True, False], steps=[[0, 1, 2], [3]])
    assert batch.prefix_values.tolist() == batch.step_values.tolist() == [2.0, -1.0, 0.5, -3.0]
    assert batch.rewards.tolist() == [0.5, -3.0]


def test_a_batch_without_steps_says_so(batch_of):
    with pytest.raises(DataError, match="the batch carries no steps; an objective that looks at steps sets needs_ste"):
        _ = batch_of([[1.0]], [True]).step_values


def test_a_mean_by_response_is_over_its_own_values_and_0_where_there_are_none():
    values, rows = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2])
    assert mean_by_response(values, rows, n_responses=4).tolist() == [2.0, 0.0, 5.0, 0.0]
