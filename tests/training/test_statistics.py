import pytest
import torch

from freeprm.models.values import Valuation
from freeprm.objectives.base import RewardBatch
from freeprm.objectives.ce import CE
from freeprm.objectives.dpo import DPO
from freeprm.objectives.step_ce import StepCE
from freeprm.training.parameterization import LogRatios, Values
from freeprm.training.statistics import SUMS, means, per_example

RATIOS = LogRatios(beta=0.5)
VALUES = Values(valuation=Valuation(parameterisation="linear", read_at="steps"))
BATCH = RewardBatch(
    token_rewards=torch.tensor([1.0, 0.5, -1.0, 2.0, 0.25]),
    rows=torch.tensor([0, 0, 1, 2, 3]),  # rewards 1.5, -1, 2, 0.25
    labels=torch.tensor([True, False, False, True]),
    groups=torch.tensor([0, 0, 1, 1]),
)


def test_sums_are_kept_by_example():
    sums = per_example(CE(), BATCH, torch.tensor([0.1, 0.2, 0.3, 0.4]), reading=RATIOS)
    named = [dict(zip(SUMS, row, strict=True)) for row in sums.tolist()]
    # Group 0: right 1.5, wrong -1, both of the label's sign. Group 1: wrong 2 (not its sign), right 0.25.
    assert named[0] == pytest.approx({
        "loss": 0.3, "items": 2, "responses": 2, "right": 1, "wrong": 1, "reward_right": 1.5, "reward_wrong": -1,
        "agreeing": 2, "log_ratio": (1.5 - 1) / 0.5, "labelled_steps": 0, "agreeing_steps": 0,
    })  # fmt: skip
    assert named[1] == pytest.approx({
        "loss": 0.7, "items": 2, "responses": 2, "right": 1, "wrong": 1, "reward_right": 0.25, "reward_wrong": 2,
        "agreeing": 1, "log_ratio": (2 + 0.25) / 0.5, "labelled_steps": 0, "agreeing_steps": 0,
    })  # fmt: skip


def test_a_pair_is_an_item_of_its_group():
    sums = per_example(DPO(), BATCH, torch.tensor([0.1, 0.4]), reading=RATIOS)
    assert sums[:, :2].tolist() == [pytest.approx([0.1, 1]), pytest.approx([0.4, 1])]


def test_means_are_over_what_they_are_means_of():
    total = per_example(CE(), BATCH, torch.tensor([0.1, 0.2, 0.3, 0.4]), reading=RATIOS).sum(0).tolist()
    assert means(total, with_reference=True) == pytest.approx({
        "responses": 4, "loss": 1.0 / 4, "sign_accuracy": 3 / 4, "reward_right": 1.75 / 2, "reward_wrong": 1 / 2,
        "margin": 0.75 / 2, "kl_to_reference": -(0.5 + 2.25) / 0.5 / 4,
    })  # fmt: skip


def test_a_mean_over_nothing_is_left_out():
    assert means([0.0] * len(SUMS), with_reference=True) == {"responses": 0.0}


def test_there_is_no_divergence_from_a_reference_that_is_not_there():
    total = per_example(CE(), BATCH, torch.zeros(4), reading=RATIOS).sum(0).tolist()
    assert "kl_to_reference" not in means(total, with_reference=False)


def test_steps_are_counted_by_the_score_that_scoring_gives_them():
    # Step rewards 2, -1 | -1, 3; as values 2, 1 | -1, 2. Labels right, wrong | not known, right; one half is neither.
    batch = RewardBatch(
        token_rewards=torch.tensor([2.0, -1.0, -1.0, 3.0, 5.0]),
        rows=torch.tensor([0, 0, 1, 1, 1]),
        labels=torch.tensor([True, False]),
        groups=torch.tensor([0, 1]),
        steps=torch.arange(5),
        step_labels=torch.tensor([1.0, 0.0, torch.nan, 1.0, 0.5]),
    )
    for reading, agreeing in ((RATIOS, [2, 1]), (VALUES, [1, 1])):
        sums = per_example(StepCE(), batch, torch.zeros(2), reading=reading)
        assert sums[:, -2:].tolist() == [[2, agreeing[0]], [1, agreeing[1]]]
        assert means(sums.sum(0).tolist(), with_reference=False)["step_accuracy"] == sum(agreeing) / 3
