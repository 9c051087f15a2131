"""Step-level KTO: the reward of each labelled step raised where it is right, lowered where it is wrong.

A second stage on an implicit process reward model, which needs no step labels for its first.

Source: Yuan et al. 2024, arXiv:2412.01981, appendix C.2.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from freeprm.objectives.base import Objective, RewardBatch, step_cross_entropy


@dataclass(frozen=True, kw_only=True)
class StepKTO(Objective):
    """-1/n sum over t of log sigmoid(l_t * r_t), l_t = +1 or -1, over a response's n labelled steps.

    r_t is the step's own reward, and not the value after it. The paper prints |r_t|, under which a wrong step with a
    positive and one with a negative reward would both be drawn to zero and right ones both driven away from it; its
    words say that rewards of right steps go up and those of wrong ones down, which is this. Of a soft label p it is the
    expectation, -p log sigmoid(r_t) - (1 - p) log sigmoid(-r_t). Items are responses.
    """

    needs_steps: ClassVar[bool] = True
    needs_step_labels: ClassVar[bool] = True

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) mean loss of a response's labelled steps, in nats."""
        # 1 - sigmoid(r) = sigmoid(-r), so with y = (l + 1) / 2 this is a cross-entropy.
        return step_cross_entropy(batch.step_rewards, batch)


PLUGIN = StepKTO
