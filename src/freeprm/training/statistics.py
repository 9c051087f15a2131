"""What is measured in training and evaluation, as sums that add up over batches, steps and devices."""

from collections.abc import Sequence

import torch
from torch import Tensor

from freeprm.objectives.base import Objective, RewardBatch, pairs

SUMS = ("loss", "items", "responses", "right", "wrong", "reward_right", "reward_wrong", "agreeing", "log_ratio")
"""The columns of `per_example`, all of them sums over an example's responses (items for the first two)."""


def per_example(objective: Objective, rewards: RewardBatch, losses: Tensor, *, beta: float) -> Tensor:
    """(E, len(SUMS)) sums of each of a batch's examples, without gradient.

    Args:
        objective: that gave the losses.
        rewards: of B responses in E groups.
        losses: (M,) in the order of the objective's items.
        beta: reward scale.
    """
    response, labels, groups = rewards.rewards.detach(), rewards.labels, rewards.groups
    n_examples = int(groups[-1]) + 1
    items = groups[pairs(labels, groups).chosen] if objective.needs_pairs else groups  # (M,) the example of each
    zero, one = torch.zeros_like(response), torch.ones_like(response)
    right = labels.to(response.dtype)
    by_response = torch.stack(
        [one, right, 1 - right, torch.where(labels, response, zero), torch.where(labels, zero, response),
         ((response > 0) == labels).to(response.dtype), response / beta], dim=1,
    )  # fmt: skip
    by_item = torch.stack([losses.detach(), torch.ones_like(losses.detach())], dim=1)  # (M, 2)
    return torch.cat(
        [
            by_item.new_zeros(n_examples, 2).index_add(0, items, by_item),
            by_response.new_zeros(n_examples, by_response.shape[1]).index_add(0, groups, by_response),
        ],
        dim=1,
    )


def means(sums: Sequence[float], *, with_reference: bool) -> dict[str, float]:
    """Means by name from the totals of `SUMS`; a mean over nothing is left out.

    `kl_to_reference` estimates KL(pi_ref || pi_phi) as minus the mean log-ratio of a response, in nats, for rollouts
    drawn from the reference. There is none where training goes without one.
    """
    total = dict(zip(SUMS, sums, strict=True))
    found = {"responses": total["responses"]}
    if total["items"]:
        found["loss"] = total["loss"] / total["items"]
    if total["responses"]:
        found["sign_accuracy"] = total["agreeing"] / total["responses"]
    if total["right"]:
        found["reward_right"] = total["reward_right"] / total["right"]
    if total["wrong"]:
        found["reward_wrong"] = total["reward_wrong"] / total["wrong"]
    if total["right"] and total["wrong"]:
        found["margin"] = found["reward_right"] - found["reward_wrong"]
    if total["responses"] and with_reference:
        found["kl_to_reference"] = -total["log_ratio"] / total["responses"]
    return found
