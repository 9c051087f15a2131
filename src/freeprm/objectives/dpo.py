"""DPO: a right response's reward above a wrong one's, as a Bradley-Terry choice.

Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from freeprm.objectives.base import Objective, RewardBatch, pairs


@dataclass(frozen=True, kw_only=True)
class DPO(Objective):
    """-log sigmoid(r_w - r_l), one loss a pair; items are independent."""

    needs_pairs: ClassVar[bool] = True

    def losses(self, batch: RewardBatch) -> Tensor:
        """(M,) one loss a pair, in the order of `pairs`, in nats."""
        chosen, rejected = pairs(batch.labels, batch.groups)
        rewards = batch.rewards
        return -logsigmoid(rewards[chosen] - rewards[rejected])


PLUGIN = DPO
