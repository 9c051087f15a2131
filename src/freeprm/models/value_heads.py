"""What a value is of a hidden state: one kind for each parameterisation.

    linear    V = w . h                       of transformers' ...ForSequenceClassification of one label: `score.weight`
    tokens    V = logit(good) - logit(bad)    of a language model's own output head

In float32 or better, whatever the weights are in. Heads are plain objects, because what distributes a model takes
tuples and dataclasses among its arguments apart.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from freeprm.models.batching import padded_ids
from freeprm.models.encoding import Encoded
from freeprm.models.packed_forward import Head, readout_of
from freeprm.models.reads import Places, padded_reads


class ValueHead(Head, Protocol):
    """What is read off hidden states, also of a model that reads no packed rows."""

    def padded(self, model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> Tensor:
        """(n_total,) values from padded rows; see `padded_reads`."""
        ...


class LinearHead:
    """w . h with the weight of the model's `score`."""

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """See `Head`."""
        head: Any = model.score
        return _product(hidden, head.weight, None)[:, 0]  # of the head's adapter, where it has one

    def padded(self, model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> Tensor:
        """See `ValueHead`."""
        return padded_reads(model, batch, places, self)


class TokensHead:
    """The logit of one token less that of another.

    Args:
        good: id of the one.
        bad: id of the other.
    """

    def __init__(self, good: int, bad: int):
        self.tokens = [good, bad]

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """See `Head`."""
        head, scale, cap = readout_of(model)
        bias = None if head.bias is None else head.bias[self.tokens]
        logits = scale * _product(hidden, head.weight[self.tokens], bias)
        return self._difference(logits if cap is None else cap * (logits / cap).tanh())

    def padded(self, model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> Tensor:
        """See `ValueHead`; of the logits that the model's own forward gives, however it makes them."""
        ids = padded_ids(batch).to(next(model.parameters()).device, non_blocking=True)  # (B, L)
        start = min(item.n_prompt for item in batch)
        kept = ids.shape[1] - start
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[:, -kept:]  # (B, kept, V)
        rows = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor([len(at) for at in places]))
        at = np.concatenate([item.n_prompt - start + where for item, where in zip(batch, places, strict=True)])
        return self._difference(logits[rows, torch.from_numpy(at.astype(np.int64))][:, self.tokens])

    def _difference(self, logits: Tensor) -> Tensor:
        exact = _wide(logits)
        return exact[:, 0] - exact[:, 1]


def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(n, d), (C, d) -> (n, C) in float32 or better: of two rows it costs nothing."""
    with torch.autocast(hidden.device.type, enabled=False):
        wide = _wide(hidden)
        return functional.linear(wide, weight.to(wide.dtype), None if bias is None else bias.to(wide.dtype))


def _wide(numbers: Tensor) -> Tensor:
    return numbers if numbers.dtype == torch.float64 else numbers.float()
