"""Cross-entropy on steps: the value after each step read as the log-odds that the step is right.

Source: Wang et al. 2023 (Math-Shepherd), arXiv:2312.08935, Eq. 2 (L_PRM).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from freeprm.objectives.base import Objective, RewardBatch, step_cross_entropy


@dataclass(frozen=True, kw_only=True)
class StepCE(Objective):
    """-y log sigmoid(V_k) - (1 - y) log(1 - sigmoid(V_k)), the mean over a response's labelled steps k.

    V_k is the value after step k: what a head says there, or, of a log-ratio, q at the step's end. Labels are hard
    (0, 1) or soft (a share of completions that came out right). Math-Shepherd sums over the steps, so that long
    responses weigh more; here items are responses, and every one weighs the same.
    """

    needs_steps: ClassVar[bool] = True
    needs_step_labels: ClassVar[bool] = True

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) mean binary cross-entropy of a response's labelled steps, in nats."""
        return step_cross_entropy(batch.step_values, batch)


PLUGIN = StepCE
