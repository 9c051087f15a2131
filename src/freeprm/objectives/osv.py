"""Outcome-supervised verifier: the value after every step is held against the outcome label.

What AutoPSV trains first; the changes of its confidence from step to step then give step labels.

Source: Lu et al. 2024 (AutoPSV), arXiv:2405.16802, the OSV's loss; after Yu et al. 2023 (OVM), arXiv:2311.09724.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from freeprm.objectives.base import Objective, RewardBatch, mean_by_response


@dataclass(frozen=True, kw_only=True)
class OSV(Objective):
    """-l log sigmoid(V_k) - (1 - l) log(1 - sigmoid(V_k)), mean over a response's steps k; items are responses.

    V_k is log-odds here as everywhere, hence the cross-entropy. Theirs is a squared error, (f - l)^2 summed over the
    steps, of a confidence f in their text and of an unbounded linear output in their released code; `squared_error`
    takes it of sigmoid(V_k). Both losses are lowest at the probability of a right outcome given the steps so far.
    """

    needs_steps: ClassVar[bool] = True

    squared_error: bool = False
    """(sigmoid(V_k) - l)^2 instead of the cross-entropy: AutoPSV's."""

    def losses(self, batch: RewardBatch) -> Tensor:
        """(B,) mean loss of a response's steps, in nats, or in squared probabilities."""
        values, rows = batch.step_values, batch.step_rows
        labels = batch.labels.to(values.dtype)[rows]  # (S_total,)
        if self.squared_error:
            losses = (values.sigmoid() - labels) ** 2
        else:
            losses = binary_cross_entropy_with_logits(values, labels, reduction="none")
        return mean_by_response(losses, rows, n_responses=len(batch.labels))


PLUGIN = OSV
