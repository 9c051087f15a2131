"""NCA: noise-contrastive alignment, which holds the rewards of both responses near zero as it separates them.

Source: Chen et al. 2024, arXiv:2402.05369, the pair version.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from freeprm.objectives.base import Objective, RewardBatch, pairs


@dataclass(frozen=True, kw_only=True)
class NCA(Objective):
    """-log sigmoid(r_w) - 1/2 log sigmoid(-r_w) - 1/2 log sigmoid(-r_l), one loss a pair; items are independent.

    In r_w the loss is lowest at log 2, where sigmoid(r_w) = 2/3: above that a right response is pulled back.
    """

    needs_pairs: ClassVar[bool] = True

    def losses(self, batch: RewardBatch) -> Tensor:
        """(M,) one loss a pair, in the order of `pairs`, in nats."""
        chosen, rejected = pairs(batch.labels, batch.groups)
        rewards = batch.rewards
        right, wrong = rewards[chosen], rewards[rejected]
        return -logsigmoid(right) - 0.5 * logsigmoid(-right) - 0.5 * logsigmoid(-wrong)


PLUGIN = NCA
