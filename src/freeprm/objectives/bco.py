"""BCO: cross-entropy after the rewards are shifted to lie around zero.

Source: Jung et al. 2024, arXiv:2404.04656.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from freeprm.objectives.base import RewardBatch


@dataclass(frozen=True, kw_only=True)
class BCO:
    """-l log sigmoid(r - delta) - (1 - l) log sigmoid(delta - r), one loss a response.

    The paper's delta is half the sum of the two classes' expected rewards. An objective keeps no state between
    batches, so delta is that of the given batch, without gradient, and NOT a running mean as in TRL (there over all
    rewards, whatever their class). Hence, unless `delta` is set, items are not independent: the loss depends on
    what shares a batch, and on its size. The density-ratio weights of the paper's second part are left out.
    """

    needs_pairs: ClassVar[bool] = False
    needs_kl: ClassVar[bool] = False
    needs_steps: ClassVar[bool] = False
    needs_step_labels: ClassVar[bool] = False

    delta: float | None = None
    """A fixed shift in beta * nats, e.g. measured on other data: makes items independent. None: the batch's own."""

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) binary cross-entropy of sigmoid(r - delta) against the outcome label, in nats."""
        rewards = batch.rewards
        shift = _shift(rewards.detach(), batch.labels) if self.delta is None else self.delta
        return binary_cross_entropy_with_logits(rewards - shift, batch.labels.to(rewards.dtype), reduction="none")


def _shift(rewards: Tensor, labels: Tensor) -> Tensor:
    """() mean of the two classes' mean rewards; where the batch has one class only, that class's mean."""
    classes = [rewards[side] for side in (labels, ~labels)]
    return torch.stack([one.mean() for one in classes if len(one)]).mean()


PLUGIN = BCO
