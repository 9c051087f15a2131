"""Literal reward batches: a list of token rewards a response."""

from collections.abc import Callable, Sequence

import pytest
import torch

from freeprm.objectives.base import RewardBatch

MakeBatch = Callable[..., RewardBatch]


@pytest.fixture(scope="session")
def batch_of() -> MakeBatch:
    """Builds a batch in float64 whose token rewards ask for a gradient; steps are counted through all responses."""

    def build(
        responses: Sequence[Sequence[float]],
        labels: Sequence[bool],
        groups: Sequence[int] | None = None,
        *,
        kl: float | None = None,
        means: Sequence[float] | None = None,
        steps: Sequence[Sequence[int]] | None = None,
        step_labels: Sequence[float] | None = None,
    ) -> RewardBatch:
        flat = [reward for response in responses for reward in response]
        rows = [row for row, response in enumerate(responses) for _ in response]
        return RewardBatch(
            token_rewards=torch.tensor(flat, dtype=torch.float64, requires_grad=True),
            rows=torch.tensor(rows, dtype=torch.int64),
            labels=torch.tensor(labels, dtype=torch.bool),
            groups=torch.tensor(groups if groups is not None else [0] * len(labels)),
            kl=None if kl is None else torch.tensor(kl, dtype=torch.float64),
            means=None if means is None else torch.tensor(means, dtype=torch.float64),
            steps=None if steps is None else torch.tensor([step for response in steps for step in response]),
            step_labels=None if step_labels is None else torch.tensor(step_labels, dtype=torch.float32),
        )

    return build
