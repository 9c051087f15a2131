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

from freeprm.errors import ModelError

Slots = NDArray[np.int64]

_CPU_BYTES = 1 << 30
_GPU_SHARE = 0.5  # of the memory that is free; activations and logits need the rest


class SlotTable:
    """The keys and values of tokens that a model has read, a row for each slot, in every layer; grows as is needed.

    Args:
        model: any whose layers all attend to keys and values that they keep; by sliding windows too, of which all is
            kept here.
        name: of the model, for messages.
        refusal: what cannot be done with a model that keeps its state in another way, and what to do instead.

    Raises:
        ModelError: the model is such a one.
    """

    def __init__(self, model: PreTrainedModel, *, name: str, refusal: str):
        self._model, self._device = model, model.device
        self._name, self._refusal = name, refusal
        kept = DynamicCache(config=model.config).layers
        if not kept or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in kept):
            raise self._unsuited()
        self._n_layers = len(kept)
        self._layers: list[tuple[Tensor, Tensor]] = []  # (S, H, D) each; slot 0 is padding, zeros
        self._free: list[int] = []
        self.free(self.read([0]))  # a token on trial shows what the model keeps, and how large it is
        on_gpu = self._device.type == "cuda"
        n_bytes = int(torch.cuda.mem_get_info(self._device)[0] * _GPU_SHARE) if on_gpu else _CPU_BYTES
        self.capacity = n_bytes // sum(keys[0].nbytes + values[0].nbytes for keys, values in self._layers)
        """Slots that there is memory for."""

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Slots:
        """Slots of a text's tokens, at least one, read by itself."""
        cache = DynamicCache()
        given = torch.tensor([list(ids)], device=self._device)
        self._model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        (slots,) = self.keep(cache, 0, [len(ids)])
        return slots

    def gather(self, pasts: Sequence[Slots], *, width: int) -> tuple[DynamicCache, Tensor]:
        """What rows have read, P tokens at most, as a cache to which a pass adds `width` tokens or fewer.

        Returns:
            B rows, padded on the left; and (B, P + width) bool, what is no padding.
        """
        past = max(map(len, pasts))
        places = np.zeros((len(pasts), past), dtype=np.int64)  # slot 0 is padding
        mask = np.ones((len(pasts), past + width), dtype=np.bool_)
        for row, slots in enumerate(pasts):
            places[row, past - len(slots) :] = slots
            mask[row, : past - len(slots)] = False
        cache = DynamicCache()
        if past:
            index = torch.from_numpy(places).to(self._device)
            for keys, values in self._layers:
                layer = _Gathered(keys[index].transpose(1, 2), values[index].transpose(1, 2))  # (B, H, P, D)
                cache.layers.append(layer)
        return cache, torch.from_numpy(mask).to(self._device)

    def check(self, cache: Cache, length: int) -> None:
        """Refuse a model some of whose layers do not keep so many tokens."""
        layers = plain_layers(cache)
        if len(layers) != self._n_layers or any(layer.get_seq_length() != length for layer in layers):
            raise self._unsuited()

    def keep(self, cache: Cache, past: int, lengths: Sequence[int]) -> list[Slots]:
        """Slots for the first tokens of each row behind `past`, as many as its length says; the cache has no others."""
        width = max(lengths)
        self.check(cache, past + width)
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

    def _unsuited(self) -> ModelError:
        return ModelError(
            f"{self._name}: a {type(self._model).__name__}, whose layers do not all keep keys and values in "
            f"transformers' way; {self._refusal}"
        )

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
