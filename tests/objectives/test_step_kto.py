from math import log, nan

import pytest

from freeprm.objectives.step_kto import StepKTO


def test_step_kto_is_the_mean_of_log_sigmoid_of_the_signed_step_rewards(batch_of):
    # Step rewards log 3 (right) and log 3 (wrong): -log sigmoid(log 3) = log(4/3), -log sigmoid(-log 3) = log 4.
    batch = batch_of([[log(2), log(1.5), log(3)]], [True], steps=[[0, 0, 1]], step_labels=[1.0, 0.0])
    assert StepKTO().losses(batch).tolist() == pytest.approx([(log(4 / 3) + log(4)) / 2])


def test_step_kto_moves_each_step_by_its_own_label_whatever_its_sign_and_the_outcome(batch_of):
    # With |r| instead of r, a right step of reward -2 would be pushed further down.
    batch = batch_of([[-2.0, 2.0, 1.0]], [False], steps=[[0, 1, 2]], step_labels=[1.0, 0.0, nan])
    StepKTO().losses(batch).sum().backward()
    right, wrong, unknown = batch.token_rewards.grad.tolist()
    assert right < 0 < wrong
    assert unknown == 0


def test_step_kto_of_a_soft_label_is_the_expectation_over_hard_ones(batch_of):
    def loss(label: float) -> float:
        return StepKTO().losses(batch_of([[1.3]], [True], steps=[[0]], step_labels=[label])).item()

    assert loss(0.25) == pytest.approx(0.25 * loss(1.0) + 0.75 * loss(0.0))
