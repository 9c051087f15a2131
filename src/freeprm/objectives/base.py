"""What an objective sees (`RewardBatch`) and what it must be (`Objective`).

Beta and the reference belong to the reward, not to the objective, so an objective never sees a
token id, a log-probability or a model.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBatch:
    """The rewards of B responses with T_total tokens in all, and their outcome labels."""

    token_rewards: Tensor
    """(T_total,) float32: beta * (log pi_phi - log pi_ref) of each response token, response after response."""
    rows: Tensor
    """(T_total,) int64: the response that each token belongs to, ascending from 0; every response has a token."""
    labels: Tensor
    """(B,) bool: True where the final answer is right."""
    groups: Tensor
    """(B,) int64: equal for responses to the same prompt."""
    kl: Tensor | None = None
    """() beta * KL(pi_phi || pi_ref), estimated without gradient; given to objectives with `needs_kl`."""

    @property
    def lengths(self) -> Tensor:
        """(B,) int64: tokens of each response."""
        return torch.bincount(self.rows, minlength=len(self.labels))

    @property
    def rewards(self) -> Tensor:
        """(B,) r(y): token rewards summed by response (Proposition 3.1's outcome reward)."""
        return self.token_rewards.new_zeros(len(self.labels)).index_add(0, self.rows, self.token_rewards)

    @property
    def prefix_values(self) -> Tensor:
        """(T_total,) V_t: running sums of the token rewards inside each response."""
        running = self.token_rewards.double().cumsum(0)
        starts = self.lengths.cumsum(0) - self.lengths  # (B,)
        before = torch.cat([running.new_zeros(1), running])[starts]  # (B,) the sum of all earlier responses
        return (running - before[self.rows]).to(self.token_rewards.dtype)

    @property
    def positions(self) -> Tensor:
        """(T_total,) int64: 1-based position of each token in its response."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.rows), device=self.rows.device) - starts[self.rows] + 1


class Pairs(NamedTuple):
    """Indices into a batch's responses: `chosen[i]` is right, `rejected[i]` wrong, both of one group."""

    chosen: Tensor
    rejected: Tensor


def pairs(labels: Tensor, groups: Tensor) -> Pairs:
    """Every right response with every wrong one of its group (the Cartesian pairing of the released code).

    Args:
        labels: (B,) bool.
        groups: (B,) int64.

    Returns:
        Two (M,) index tensors, ordered by chosen, then rejected.
    """
    same = groups[:, None] == groups[None, :]  # (B, B)
    chosen, rejected = (same & labels[:, None] & ~labels[None, :]).nonzero(as_tuple=True)
    return Pairs(chosen, rejected)


class Objective(Protocol):
    """Turns a batch of rewards into losses, one for each item that it trains on."""

    needs_pairs: ClassVar[bool]
    """Items are pairs inside a group, so that groups with one class give none; otherwise responses."""
    needs_kl: ClassVar[bool]
    """`RewardBatch.kl` must be given."""

    def losses(self, batch: RewardBatch) -> Tensor:
        """(M,) float32, one loss an item: a response, or a pair in the order of `pairs`."""
        ...
