"""Token log-probabilities from padded rows: the way for models that cannot read packed ones.

Rows are padded on the right. Under a causal mask no token of a response can see the padding after it, so none is
masked; only the positions that predict response tokens go through the output head. The largest tensors are the logits,
rows x response tokens x vocabulary; a caller bounds them by the rows that it gives.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from freeprm.models.encoding import Encoded


def padded_logprobs(model: nn.Module, batch: Sequence[Encoded]) -> Tensor:
    """log pi(y_t | x, y_<t) of every response token, differentiable.

    Args:
        model: a causal language model, possibly wrapped for distributed training.
        batch: B prompts with responses.

    Returns:
        (T_total,) float32 (float64 for a float64 model), response after response.
    """
    ids = padded_ids(batch).to(next(model.parameters()).device, non_blocking=True)  # (B, L)
    start = min(item.n_prompt for item in batch)
    # The first response token is predicted at the last prompt position, hence one more than the tokens from `start` on.
    n_positions = ids.shape[1] - start + 1
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=n_positions).logits
    # Cut again, for the few architectures that ignore `logits_to_keep`. Row by row, so that float32 copies are of one
    # row and not of all; unbound, because the gradient of an index would be a full tensor a row.
    rows = logits[:, -n_positions:].unbind(0)
    return torch.cat([
        _chosen(row[item.n_prompt - start :][: item.n_response], row_ids[item.n_prompt : len(item.ids)])
        for row, row_ids, item in zip(rows, ids, batch, strict=True)
    ])  # fmt: skip


class Row(Protocol):
    """Anything with token ids."""

    @property
    def ids(self) -> NDArray[np.int32]:
        """(L,)"""
        ...


def divide(encoded: Sequence[Row], *, token_budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length whose padded size stays within the budget; longest first.

    Longest first, so that a batch that does not fit the memory fails at once.
    """
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row].ids))
    batch: list[int] = []
    for row in order:
        if batch and len(encoded[batch[0]].ids) * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded_ids(batch: Sequence[Row]) -> Tensor:
    """(B, L) ids; the padding is never attended nor scored, so any id serves."""
    ids = torch.zeros(len(batch), max(len(item.ids) for item in batch), dtype=torch.long)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.from_numpy(item.ids)
    return ids


def _chosen(logits: Tensor, ids: Tensor) -> Tensor:
    """(T,) log-softmax of (T, V) logits at (T,) ids, in float32 or better."""
    exact = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return -cross_entropy(exact, ids, reduction="none")
