"""What a head says of the hidden states that have just read chosen tokens of responses, from packed or padded rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from freeprm.models.batching import padded_ids
from freeprm.models.encoding import Encoded
from freeprm.models.packed_forward import Head, Reads, Tree, on_device, row
from freeprm.models.packing import Index, Packed

Places = NDArray[np.integer]
"""Indices of tokens of one response, from 0."""


def packed_reads(model: nn.Module, packed: Packed, tree: Tree, places: Sequence[Places], head: Head) -> Tensor:
    """(n_total,) what a taught model's head says, response after response; where several share a token, once.

    Args:
        model: a taught model.
        packed: B responses.
        tree: of its segments.
        places: B of them; the state that has read the token there is asked for.
        head: see `Head`.
    """
    asked = [packed.answering[rows[at]] for rows, at in zip(packed.places, places, strict=True)]
    positions, back = np.unique(np.concatenate(asked), return_inverse=True)
    return _asked(model, row(packed, tree, _device(model)), positions, head).index_select(
        0, on_device(back, _device(model))
    )


def padded_reads(model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places], head: Head) -> Tensor:
    """(n_total,) the same from padded rows, of a model that answers where `Reads` ask."""
    ids = padded_ids(batch)  # (B, L)
    positions = np.concatenate([
        index * ids.shape[1] + item.n_prompt + at.astype(np.int64)
        for index, (item, at) in enumerate(zip(batch, places, strict=True))
    ])  # fmt: skip
    return _asked(model, {"input_ids": ids.to(_device(model), non_blocking=True), "use_cache": False}, positions, head)


def _asked(model: nn.Module, rows: dict[str, Any], positions: Index, head: Head) -> Tensor:
    answers: Tensor = model(**rows, reads=Reads(on_device(positions, _device(model)), head))
    return answers


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
