from math import log, nan

import pytest

from freeprm.objectives.step_ce import StepCE


def test_step_ce_holds_the_value_after_each_step_against_its_label(batch_of):
    # Token rewards log 3, 0 | -log 3 make values log 3 and 0: -log sigmoid(log 3) = log(4/3), -log(1 - 1/2) = log 2.
    batch = batch_of([[log(3), 0.0, -log(3)]], [False], steps=[[0, 0, 1]], step_labels=[1.0, 0.0])
    assert StepCE().losses(batch).tolist() == pytest.approx([(log(4 / 3) + log(2)) / 2])


def test_step_ce_of_a_soft_label_is_lowest_at_its_log_odds(batch_of):
    # Of the label 3/4 the minimum, at V = log 3, is its entropy: 3/4 log(4/3) + 1/4 log 4.
    at = {
        value: StepCE().losses(batch_of([[value]], [True], steps=[[0]], step_labels=[0.75])).item()
        for value in (log(3), log(3) - 0.1, log(3) + 0.1)
    }
    assert at[log(3)] == pytest.approx(0.75 * log(4 / 3) + 0.25 * log(4))
    assert min(at, key=at.__getitem__) == log(3)


def test_step_ce_leaves_steps_without_a_label_out_of_the_mean_and_without_a_gradient(batch_of):
    batch = batch_of([[0.0, 5.0], [0.0]], [True, True], steps=[[0, 1], [2]], step_labels=[1.0, nan, 0.0])
    losses = StepCE().losses(batch)
    assert losses.tolist() == pytest.approx([log(2), log(2)])
    losses.sum().backward()
    # Of sigmoid(0) = 1/2: -1/2 where the label is 1, 1/2 where it is 0; the second token leads to no labelled step.
    assert batch.token_rewards.grad.tolist() == pytest.approx([-0.5, 0.0, 0.5])


def test_step_ce_weighs_a_long_response_like_a_short_one(batch_of):
    batch = batch_of([[0.7], [0.7, 0.0, 0.0]], [True, True], steps=[[0], [1, 2, 3]], step_labels=[1.0] * 4)
    losses = StepCE().losses(batch)
    assert losses[0].item() == pytest.approx(losses[1].item())
