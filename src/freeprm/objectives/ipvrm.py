"""IPVRM: every prefix of a response, not only its end, is held against the outcome label.

Source: Gao et al. 2026, arXiv:2604.13197, Eq. 9.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from freeprm.objectives.base import Defaults, Objective, RewardBatch


@dataclass(frozen=True, kw_only=True)
class IPVRM(Objective):
    """Mean over t = 1..T of -l log sigmoid(v_t - m) - (1 - l) log(1 - sigmoid(v_t + m)), with v_t = V_t / t.

    One loss a response; items are independent. The margin asks v_t >= m of right and v_t <= -m of wrong responses.
    The authors' code averages over all tokens of a micro-batch, so that long responses weigh more unless a
    micro-batch is one response; here every response weighs the same, as in the paper's formula.
    """

    defaults: ClassVar[Defaults] = Defaults(
        source="Gao et al. 2026, arXiv:2604.13197: beta 10 with m = 5, learning rate 5e-7, batch 64, 3 epochs",
        beta=10.0,
        trainer={"learning_rate": 5e-7, "num_train_epochs": 3.0},
    )

    margin: float = 5.0
    """m, 0 or more, in beta * nats a token. The paper's 5 goes with its beta of 10: half a nat a token."""
    emphasis: Literal["even", "early", "late"] = "even"
    """Weights of the prefixes, 1 on average: all alike, or falling or rising evenly with t. By the authors late ones
    help best-of-N, and early ones help to find errors."""

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) mean loss of a response's prefixes, in nats."""
        values = batch.prefix_values / batch.positions  # (T_total,)
        signs = batch.labels.to(values.dtype)[batch.rows] * 2 - 1  # (T_total,) +1 where the response is right, else -1
        # 1 - sigmoid(v + m) = sigmoid(-v - m), so both classes are -log sigmoid(sign * v - m).
        prefix_losses = -logsigmoid(signs * values - self.margin) * self._weights(batch)
        totals = values.new_zeros(len(batch.labels)).index_add(0, batch.rows, prefix_losses)
        return totals / batch.lengths

    def _weights(self, batch: RewardBatch) -> Tensor:
        """(T_total,) of each prefix."""
        lengths = batch.lengths[batch.rows]
        if self.emphasis == "even":
            return torch.ones_like(batch.token_rewards)
        ranks = batch.positions if self.emphasis == "late" else lengths + 1 - batch.positions
        return (2 * ranks / (lengths + 1)).to(batch.token_rewards.dtype)  # 1..T are (T + 1) / 2 on average


PLUGIN = IPVRM
