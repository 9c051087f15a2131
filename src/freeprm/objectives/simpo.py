"""SimPO-like: rewards averaged over the tokens, a right response's above a wrong one's by a margin.

Source: Meng et al. 2024, arXiv:2405.14734, Eq. 6.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from freeprm.objectives.base import Defaults, Objective, RewardBatch, pairs


@dataclass(frozen=True, kw_only=True)
class SimPO(Objective):
    """-log sigmoid(r_w / |y_w| - r_l / |y_l| - gamma), one loss a pair; items are independent.

    SimPO proper has no reference: it is this objective on rewards formed without one, r = beta * log pi_phi.
    With a reference and gamma = 0 it is length-normalised DPO (`sigmoid_norm` in TRL).
    """

    needs_pairs: ClassVar[bool] = True
    defaults: ClassVar[Defaults] = Defaults(
        source="Meng et al. 2024, arXiv:2405.14734: beta 2 to 2.5, gamma / beta 0.1 to 0.8, learning rate 3e-7 to 1e-6",
        beta=2.0,
        trainer={"learning_rate": 5e-7},
    )

    gamma: float = 0.5
    """The margin, 0 or more, in beta * nats a token: at a beta of 2 a quarter of a nat a token."""

    def losses(self, batch: RewardBatch) -> Tensor:
        """(M,) one loss a pair, in the order of `pairs`, in nats."""
        chosen, rejected = pairs(batch.labels, batch.groups)
        averages = batch.rewards / batch.lengths
        return -logsigmoid(averages[chosen] - averages[rejected] - self.gamma)


PLUGIN = SimPO
