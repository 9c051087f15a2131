"""Keys and values of tokens, a slot for each token in every layer: what responses share is kept once.

A page of one token, so to speak, of what servers call paged attention; but here a forward pass sees an ordinary cache,
gathered for it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

Slots = NDArray[np.int64]

_CPU_BYTES = 1 << 30
_GPU_SHARE = 0.5  # of the memory that is free; activations and logits need the rest


class SlotTable:
    """The keys and values of tokens, a row for each slot, in every layer; made as large as is needed.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._layers: list[tuple[Tensor, Tensor]] = []  # (S, H, D) each; slot 0 is padding, zeros
        self._free: list[int] = []

    @property
    def capacity(self) -> int:
        """Slots that there is memory for, those in use included; known once a token has been kept."""
        on_gpu = self._device.type == "cuda"
        n_bytes = int(torch.cuda.mem_get_info(self._device)[0] * _GPU_SHARE) if on_gpu else _CPU_BYTES
        return n_bytes // sum(keys[0].nbytes + values[0].nbytes for keys, values in self._layers)

    def gather(self, places: Slots) -> DynamicCache:
        """(B, P) slots as a cache of B rows."""
        cache = DynamicCache()
        if places.shape[1]:
            index = torch.from_numpy(places).to(self._device)
            for keys, values in self._layers:
                layer = _Gathered(keys[index].transpose(1, 2), values[index].transpose(1, 2))  # (B, H, P, D)
                cache.layers.append(layer)
        return cache

    def keep(self, cache: Cache, past: int, lengths: Sequence[int]) -> list[Slots]:
        """Slots for the first tokens of each row behind `past`, as many as its length says."""
        width = max(lengths)
        valid = (np.arange(width) < np.array(lengths)[:, None]).ravel()
        real = torch.from_numpy(np.flatnonzero(valid)).to(self._device)
        states = [(_flat(layer.keys, past)[real], _flat(layer.values, past)[real]) for layer in plain_layers(cache)]
        self._make_room(sum(lengths), states)
        taken = np.array(self._free[-sum(lengths) :], dtype=np.int64)
        del self._free[-sum(lengths) :]
        index = torch.from_numpy(taken).to(self._device)
        for (keys, values), (new_keys, new_values) in zip(self._layers, states, strict=True):
            keys[index], values[index] = new_keys, new_values
        return np.split(taken, np.cumsum(lengths)[:-1])

    def free(self, slots: Slots) -> None:
        """Let slots be used again."""
        self._free += slots.tolist()

    def _make_room(self, n_slots: int, like: Sequence[tuple[Tensor, Tensor]]) -> None:
        if n_slots <= len(self._free):
            return
        size = len(self._layers[0][0]) if self._layers else 1
        more = max(n_slots, size)
        if not self._layers:
            self._layers = [(torch.zeros_like(keys[:1]), torch.zeros_like(values[:1])) for keys, values in like]
        self._layers = [(_longer(keys, more), _longer(values, more)) for keys, values in self._layers]
        self._free += range(size + more - 1, size - 1, -1)


class _Gathered(DynamicLayer):
    """One layer's keys and values, (B, H, P, D), to which a forward pass adds its own."""

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys, values
        self.is_initialized = True


def n_kept_layers(model: PreTrainedModel) -> int | None:
    """Layers that keep keys and values; None where some keep something else."""
    layers = DynamicCache(config=model.config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return len(layers) if layers and plain else None


def plain_layers(cache: Cache) -> list[DynamicLayer]:
    """The layers that hold keys and values, and nothing else."""
    return [layer for layer in cache.layers if isinstance(layer, DynamicLayer) and layer.is_initialized]


def _flat(states: Tensor | None, past: int) -> Tensor:
    """(B, H, P + C, D) -> (B * C, H, D), without the past."""
    assert states is not None
    new = states[:, :, past:].transpose(1, 2)
    return new.reshape(-1, *new.shape[2:])


def _longer(states: Tensor, more: int) -> Tensor:
    return torch.cat([states, states.new_empty(more, *states.shape[1:])])
