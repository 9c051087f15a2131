"""KTO: gains and losses of a prospect, measured from what the policy's average divergence already earns.

Source: Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 7.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, where

from freeprm.errors import DataError
from freeprm.objectives.base import Objective, RewardBatch


@dataclass(frozen=True, kw_only=True)
class KTO(Objective):
    """w_D (1 - sigmoid(r - z)) if right, w_U (1 - sigmoid(z - r)) if wrong, with z = max(0, beta KL(pi_phi || pi_ref)).

    One loss a response. Given z, items are independent; z itself comes from outside in `RewardBatch.kl`, already times
    beta and without gradient. It is estimated as in the paper, from as many mismatched responses as there are matched
    ones, each a response to another prompt. The paper and TRL take those of a micro-batch; the trainer here takes all
    of the optimisation step, so that z is less noisy and the same however a step is cut.
    """

    needs_kl: ClassVar[bool] = True

    desirable_weight: float = 1.0
    """w_D, of right responses, above 0. Advised: w_D n_right / (w_U n_wrong) between 1 and 4/3."""
    undesirable_weight: float = 1.0
    """w_U, of wrong responses, above 0."""

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) one loss a response, between 0 and its weight."""
        if batch.kl is None:
            raise DataError("kto: the batch carries no kl; expected beta * KL(policy || reference), in reward units")
        reference_point = batch.kl.detach().clamp(min=0.0)
        gain = batch.rewards - reference_point
        # 1 - sigmoid(x) is written sigmoid(-x): no cancellation where the loss is small.
        return where(batch.labels, self.desirable_weight * (-gain).sigmoid(), self.undesirable_weight * gain.sigmoid())


PLUGIN = KTO
