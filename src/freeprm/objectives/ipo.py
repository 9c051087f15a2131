"""IPO: a right response's reward above a wrong one's by a set margin, no less and no more.

Source: Azar et al. 2023, arXiv:2310.12036, Eq. 17.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from freeprm.objectives.base import Objective, RewardBatch, pairs


@dataclass(frozen=True, kw_only=True)
class IPO(Objective):
    """(r_w - r_l - margin)^2, one loss a pair; items are independent.

    The paper writes (h - 1 / (2 tau))^2 with h the difference of the log-ratios and tau what we call beta. An
    objective sees rewards r = beta * log-ratio, so this is beta^2 times the paper's loss at margin 1/2: the same
    minimum, and gradients smaller by beta^2, which an adaptive optimiser such as AdamW undoes.
    """

    needs_pairs: ClassVar[bool] = True

    margin: float = 0.5
    """The difference of rewards to reach, above 0, in beta * nats (a token, with `per_token`)."""
    per_token: bool = False
    """Divide each reward by its response's tokens first, as TRL does with its authors' agreement; Eq. 17 does not."""

    def losses(self, batch: RewardBatch) -> Tensor:
        """(M,) one loss a pair, in the order of `pairs`, in (beta * nats)^2."""
        chosen, rejected = pairs(batch.labels, batch.groups)
        rewards = batch.rewards / batch.lengths if self.per_token else batch.rewards
        return (rewards[chosen] - rewards[rejected] - self.margin) ** 2


PLUGIN = IPO
