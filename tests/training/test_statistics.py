import pytest
import torch

from freeprm.objectives.base import RewardBatch
from freeprm.objectives.ce import CE
from freeprm.objectives.dpo import DPO
from freeprm.training.statistics import SUMS, means, per_example

BATCH = RewardBatch(
    token_rewards=torch.tensor([1.0, 0.5, -1.0, 2.0, 0.25]),
    rows=torch.tensor([0, 0, 1, 2, 3]),  # rewards 1.5, -1, 2, 0.25
    labels=torch.tensor([True, False, False, True]),
    groups=torch.tensor([0, 0, 1, 1]),
)


def test_sums_are_kept_by_example():
    sums = per_example(CE(), BATCH, torch.tensor([0.1, 0.2, 0.3, 0.4]), beta=0.5)
    named = [dict(zip(SUMS, row, strict=True)) for row in sums.tolist()]
    # Group 0: right 1.5, wrong -1, both of the label's sign. Group 1: wrong 2 (not its sign), right 0.25.
    assert named[0] == pytest.approx({
        "loss": 0.3, "items": 2, "responses": 2, "right": 1, "wrong": 1, "reward_right": 1.5, "reward_wrong": -1,
        "agreeing": 2, "log_ratio": (1.5 - 1) / 0.5,
    })  # fmt: skip
    assert named[1] == pytest.approx({
        "loss": 0.7, "items": 2, "responses": 2, "right": 1, "wrong": 1, "reward_right": 0.25, "reward_wrong": 2,
        "agreeing": 1, "log_ratio": (2 + 0.25) / 0.5,
    })  # fmt: skip


def test_a_pair_is_an_item_of_its_group():
    sums = per_example(DPO(), BATCH, torch.tensor([0.1, 0.4]), beta=0.5)
    assert sums[:, :2].tolist() == [pytest.approx([0.1, 1]), pytest.approx([0.4, 1])]


def test_means_are_over_what_they_are_means_of():
    total = per_example(CE(), BATCH, torch.tensor([0.1, 0.2, 0.3, 0.4]), beta=0.5).sum(0).tolist()
    assert means(total, with_reference=True) == pytest.approx({
        "responses": 4, "loss": 1.0 / 4, "sign_accuracy": 3 / 4, "reward_right": 1.75 / 2, "reward_wrong": 1 / 2,
        "margin": 0.75 / 2, "kl_to_reference": -(0.5 + 2.25) / 0.5 / 4,
    })  # fmt: skip


def test_a_mean_over_nothing_is_left_out():
    assert means([0.0] * len(SUMS), with_reference=True) == {"responses": 0.0}


def test_there_is_no_divergence_from_a_reference_that_is_not_there():
    total = per_example(CE(), BATCH, torch.zeros(4), beta=0.5).sum(0).tolist()
    assert "kl_to_reference" not in means(total, with_reference=False)
