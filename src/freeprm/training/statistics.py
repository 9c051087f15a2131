"""What is measured in training and evaluation, as sums that add up over batches, steps and devices."""

from collections.abc import Sequence

import torch
from torch import Tensor

from freeprm.objectives.base import Objective, RewardBatch, pairs
from freeprm.training.parameterization import Parameterization

SUMS = (
    "loss", "items", "responses", "right", "wrong", "reward_right", "reward_wrong", "agreeing", "log_ratio",
    "labelled_steps", "agreeing_steps",
)  # fmt: skip
"""The columns of `per_example`: sums over an example's items (the first two), responses, and steps (the last two)."""


def per_example(objective: Objective, rewards: RewardBatch, losses: Tensor, *, reading: Parameterization) -> Tensor:
    """(E, len(SUMS)) sums of each of a batch's examples, without gradient.

    Args:
        objective: that gave the losses.
        rewards: of B responses in E groups.
        losses: (M,) in the order of the objective's items.
        reading: what the rewards are.
    """
    response, labels, groups = rewards.rewards.detach(), rewards.labels, rewards.groups
    n_examples = int(groups[-1]) + 1
    items = groups[pairs(labels, groups).chosen] if objective.needs_pairs else groups  # (M,) the example of each
    zero, one = torch.zeros_like(response), torch.ones_like(response)
    right = labels.to(response.dtype)
    by_response = torch.stack(
        [one, right, 1 - right, torch.where(labels, response, zero), torch.where(labels, zero, response),
         ((response > 0) == labels).to(response.dtype), response / reading.beta], dim=1,
    )  # fmt: skip
    by_item = torch.stack([losses.detach(), torch.ones_like(losses.detach())], dim=1)  # (M, 2)
    return torch.cat(
        [
            by_item.new_zeros(n_examples, 2).index_add(0, items, by_item),
            by_response.new_zeros(n_examples, by_response.shape[1]).index_add(0, groups, by_response),
            _by_step(rewards, reading, n_examples).to(by_response.dtype),
        ],
        dim=1,
    )


def means(sums: Sequence[float], *, with_reference: bool) -> dict[str, float]:
    """Means by name from the totals of `SUMS`; a mean over nothing is left out.

    `sign_accuracy` is the share of responses whose reward (their last value) is above 0 just where they are right;
    `step_accuracy` the same of labelled steps, by the score that scoring will give them: r_k of a log-ratio, else V_k.
    `kl_to_reference` estimates KL(pi_ref || pi_phi) as minus the mean log-ratio of a response, in nats, for rollouts
    drawn from the reference. There is none where training goes without one.
    """
    total = dict(zip(SUMS, sums, strict=True))
    found = {"responses": total["responses"]}
    if total["items"]:
        found["loss"] = total["loss"] / total["items"]
    if total["responses"]:
        found["sign_accuracy"] = total["agreeing"] / total["responses"]
    if total["labelled_steps"]:
        found["labelled_steps"] = total["labelled_steps"]
        found["step_accuracy"] = total["agreeing_steps"] / total["labelled_steps"]
    if total["right"]:
        found["reward_right"] = total["reward_right"] / total["right"]
    if total["wrong"]:
        found["reward_wrong"] = total["reward_wrong"] / total["wrong"]
    if total["right"] and total["wrong"]:
        found["margin"] = found["reward_right"] - found["reward_wrong"]
    if total["responses"] and with_reference:
        found["kl_to_reference"] = -total["log_ratio"] / total["responses"]
    return found


def _by_step(rewards: RewardBatch, reading: Parameterization, n_examples: int) -> Tensor:
    """(E, 2) labelled steps of each example, and those whose score has the label's sign; a label of 1/2 has none."""
    sums = rewards.token_rewards.new_zeros(n_examples, 2)
    if rewards.step_labels is None:
        return sums
    decided = (rewards.step_labels.isfinite() & (rewards.step_labels != 0.5)).nonzero()[:, 0]
    agreeing = (reading.step_scores(rewards).detach() > 0)[decided] == (rewards.step_labels[decided] > 0.5)
    examples = rewards.groups[rewards.step_rows[decided]]
    return sums.index_add(0, examples, torch.stack([torch.ones_like(agreeing), agreeing], dim=1).to(sums.dtype))
