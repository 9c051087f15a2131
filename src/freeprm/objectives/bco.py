"""BCO: cross-entropy after the rewards are shifted to lie around zero.

Source: Jung et al. 2024, arXiv:2404.04656.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from freeprm.errors import DataError
from freeprm.objectives.base import Objective, RewardBatch, Totals


@dataclass(frozen=True, kw_only=True)
class BCO(Objective):
    """-l log sigmoid(r - delta) - (1 - l) log sigmoid(delta - r), one loss a response.

    delta is half the sum of the two classes' mean rewards, as in the paper, of the policy at hand over the whole
    optimisation step. TRL's is a running mean of all rewards, whatever their class, by micro-batch: it follows the more
    frequent class, lags behind the policy, and changes with the way a step is cut. Ours costs a forward pass more.
    Of a class that is absent from a step the mean stays as it was last (0 before: what an untrained policy earns), so
    that the rewards of the other one are not measured from their own mean, where they could never be large enough.
    Given delta, items are independent. The density-ratio weights of the paper's second part are left out.
    """

    delta: float | None = None
    """A fixed shift in beta * nats, e.g. measured on other data, which saves the pass; None: the step's own."""

    @property
    def needs_means(self) -> bool:
        """Unless delta is fixed."""
        return self.delta is None

    def totals(self, batch: RewardBatch) -> Totals:
        """For the mean reward of right responses, and of wrong ones."""
        rewards = batch.rewards
        sides = torch.stack([batch.labels, ~batch.labels]).to(rewards.dtype)  # (2, B)
        return Totals(sums=sides @ rewards, weights=sides.sum(1))

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) binary cross-entropy of sigmoid(r - delta) against the outcome label, in nats."""
        rewards = batch.rewards
        delta: float | Tensor | None = self.delta
        if delta is None:
            if batch.means is None:
                raise DataError("bco: the batch carries no means; expected the mean right and the mean wrong reward")
            delta = batch.means.detach().mean()
        return binary_cross_entropy_with_logits(rewards - delta, batch.labels.to(rewards.dtype), reduction="none")


PLUGIN = BCO
