"""A key-value cache that is written in place: transformers' own copies the whole cache for every token.

Only for models whose layers all attend to the full context; others keep transformers' cache.
"""

from typing import cast

import torch
from torch import LongTensor, Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


def spread(prompts: DynamicCache, rows: Tensor, *, width: int, capacity: int | None = None) -> Cache:
    """The cache of encoded prompts, a row for each text that continues one.

    Args:
        prompts: P rows, padded on the left; not to be used afterwards.
        rows: (B,) the prompt that each text belongs to.
        width: tokens of prompt and response that there must be room for.
        capacity: rows that there must be room for; B if not given.
    """
    plain = [layer for layer in prompts.layers if type(layer) is DynamicLayer]
    if len(plain) == len(prompts.layers):
        return Cache(layers=[InPlaceLayer(layer, rows, width=width, capacity=capacity) for layer in plain])
    keep(prompts, rows)
    return prompts


def keep(cache: Cache, rows: Tensor) -> None:
    """Keep the rows of these indices, in this order; one that is named twice becomes two."""
    cache.reorder_cache(cast(LongTensor, rows))


class InPlaceLayer(DynamicLayer):
    """One layer's keys and values, (B, heads, width, head size), of which the first `get_seq_length()` are filled.

    Args:
        prompts: see `spread`, as for the others.
    """

    def __init__(self, prompts: DynamicLayer, rows: Tensor, *, width: int, capacity: int | None = None):
        super().__init__()
        assert prompts.keys is not None
        assert prompts.values is not None
        self.dtype, self.device = prompts.keys.dtype, prompts.keys.device
        self._all_keys, self._all_values = (
            _widened(states, rows, width, capacity or len(rows)) for states in (prompts.keys, prompts.values)
        )
        self.is_initialized = True
        self._show(len(rows), prompts.keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind those that are there, and return views of all."""
        n_rows, start = len(key_states), self.get_seq_length()
        stop = start + key_states.shape[-2]
        self._all_keys[:n_rows, :, start:stop] = key_states
        self._all_values[:n_rows, :, start:stop] = value_states
        self._show(n_rows, stop)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """As `keep`; only rows that change place are copied."""
        n_rows, length = len(beam_idx), self.get_seq_length()
        moved = (beam_idx != torch.arange(n_rows, device=beam_idx.device)).nonzero()[:, 0]
        for states in (self._all_keys, self._all_values):
            states[moved, :, :length] = states[beam_idx[moved], :, :length]
        self._show(n_rows, length)

    def _show(self, n_rows: int, length: int) -> None:
        self.keys, self.values = self._all_keys[:n_rows, :, :length], self._all_values[:n_rows, :, :length]


def _widened(states: Tensor, rows: Tensor, width: int, capacity: int) -> Tensor:
    _, n_heads, length, head_size = states.shape
    wide = states.new_empty(capacity, n_heads, width, head_size)
    wide[: len(rows), :, :length] = states[rows]
    return wide
