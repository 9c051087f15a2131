"""Advantages of drawn tokens, from outcomes and process rewards: numbers in, numbers out.

B responses stand in groups of n to one prompt, padded at the right to T tokens. Outcomes are 1 or 0, or NaN where an
answer could not be judged. Group statistics need all responses of a group, so with several processes outcomes and mean
rewards are those of all of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def leave_one_out(values: Tensor, n: int) -> Tensor:
    """(B,) each value less the mean of the others of its group: RLOO's baseline (Ahmadian et al. 2024, Equation 7).

    Args:
        values: (B,) group after group; NaN where there is none.
        n: responses of a group.

    Returns:
        (B,) 0 where there is no value, or no other one.
    """
    return torch.nan_to_num(values - baseline(values, n), nan=0.0)


def baseline(values: Tensor, n: int) -> Tensor:
    """(B,) the mean of the other values of its group that are there; NaN if none is."""
    grouped = values.view(-1, n)
    known = grouped.isfinite()
    sums = grouped.where(known, 0.0)
    others = known.sum(1, keepdim=True) - known.long()
    means = (sums.sum(1, keepdim=True) - sums) / others.where(others > 0, 1)
    return means.where(others > 0, torch.nan).reshape(-1)


def process_returns(rewards: Tensor, mask: Tensor, baselines: Tensor, *, gamma: float = 1.0) -> Tensor:
    """(B, T) sum over s >= t of gamma^(s-t) * (r_s - b): the process part of PRIME's advantage.

    Cui et al. 2025, arXiv:2502.01456, Equation 5, where b is the mean over the group's other responses of their mean
    token reward. The released code takes n / (n - 1) * r_s - sum of all means / (n - 1) instead of r_s - b, which is
    the same of a response's mean.

    Args:
        rewards: (B, T) of each token.
        mask: (B, T) bool, True on tokens.
        baselines: (B,) b.
        gamma: discount; 1 in the paper.
    """
    centred = (rewards - baselines[:, None]).masked_fill(~mask, 0.0)
    if gamma == 1.0:
        return centred.flip(1).cumsum(1).flip(1).masked_fill(~mask, 0.0)
    returns = torch.zeros_like(centred)
    after = centred.new_zeros(len(centred))
    for at in reversed(range(centred.shape[1])):
        returns[:, at] = after = centred[:, at] + gamma * after
    return returns.masked_fill(~mask, 0.0)


def mean_rewards(rewards: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean token reward of each response; NaN of one without tokens."""
    return rewards.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).where(mask.any(1), torch.nan)


def whitened(values: Tensor, mask: Tensor, *, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> Tensor:
    """(B, T) less their mean and divided by their standard deviation, over the tokens of all processes; 0 elsewhere.

    Args:
        values, mask: (B, T).
        total: adds up (3,) sums over processes.
    """
    mean, variance = moments(values, mask, total=total)
    white: Tensor = ((values.double() - mean) * (variance + 1e-8).rsqrt()).masked_fill(~mask, 0.0)
    return white.to(values.dtype)


def moments(values: Tensor, mask: Tensor, *, total: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """() mean and variance of the values on tokens, over all processes, in float64; see `whitened`."""
    inside = values.masked_fill(~mask, 0.0).double()
    count, sums, squares = total(torch.stack([mask.sum().double(), inside.sum(), inside.square().sum()]))
    mean = sums / count.clamp(min=1)
    return mean, (squares / count.clamp(min=1) - mean.square()).clamp(min=0)


def candidate_loss(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, *, epsilon: float) -> Tensor:
    """() minus the clipped advantage of likely tokens, drawn or not, weighted by their probability: DistRL.

    Gao et al. 2026, arXiv:2604.13197: sum over candidates of p_old * min(ratio * A, clip(ratio) * A) over the sum of
    p_old, of which the sampled token's policy loss is the case of one draw.

    Args:
        logps: (B, T, K) of the candidates under the policy, differentiable.
        old_logps: (B, T, K) under the policy that drew.
        advantages: (B, T, K) reward of each candidate as the next token, over the deviation of prefix values.
        mask: (B, T, K) bool, the candidates that count.
        epsilon: half the width within which a ratio counts.
    """
    ratio = (logps - old_logps).exp()
    gains = torch.min(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)
    weights = old_logps.exp() * mask
    loss: Tensor = -(gains * weights).sum() / weights.sum().clamp(min=1e-8)
    return loss
