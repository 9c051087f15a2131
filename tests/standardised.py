"""An objective of somebody else's that is defined by statistics over all items of a step."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from freeprm.objectives.base import RewardBatch, Totals


@dataclass(frozen=True, kw_only=True)
class Standardised:
    """Cross-entropy of rewards less their mean, over their standard deviation, which comes of the mean of squares."""

    needs_pairs: ClassVar[bool] = False
    needs_kl: ClassVar[bool] = True
    """Beside the means, to see that both are kept apart."""
    needs_means: ClassVar[bool] = True
    needs_steps: ClassVar[bool] = False
    needs_step_labels: ClassVar[bool] = False

    def totals(self, batch: RewardBatch) -> Totals:
        rewards = batch.rewards
        sums = torch.stack([rewards.sum(), (rewards**2).sum()])
        return Totals(sums=sums, weights=torch.full_like(sums, len(rewards)))

    def losses(self, batch: RewardBatch) -> Tensor:
        assert batch.means is not None
        assert batch.kl is not None
        mean, square = batch.means
        logits = (batch.rewards - mean + batch.kl) / (square - mean**2).sqrt()
        return binary_cross_entropy_with_logits(logits, batch.labels.to(logits.dtype), reduction="none")
