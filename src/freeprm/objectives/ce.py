"""Cross-entropy: the reward read as the log-odds of a right answer.

Source: Yuan et al. 2024, arXiv:2412.01981, Eq. 5.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from freeprm.objectives.base import Objective, RewardBatch


@dataclass(frozen=True, kw_only=True)
class CE(Objective):
    """-l log sigmoid(r) - (1 - l) log(1 - sigmoid(r)), one loss a response; items are independent.

    The released code takes log(sigmoid(r)), which is infinite for large wrong rewards; this works on the logit.
    """

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) binary cross-entropy of sigmoid(r) against the outcome label, in nats."""
        rewards = batch.rewards
        return binary_cross_entropy_with_logits(rewards, batch.labels.to(rewards.dtype), reduction="none")


PLUGIN = CE
