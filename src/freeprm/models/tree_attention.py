"""Attention over a packed prefix tree, as an attention implementation of transformers.

A model whose layers all attend through transformers' interface computes a packed row (see `packing`) exactly as it
would compute the responses one by one: each segment attends to its ancestors and causally to itself. Without a tree the
implementation is SDPA, so a model that has it generates as before.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from freeprm.models.packing import Segment

NAME = "freeprm_tree"
"""Of the implementation, among those of transformers."""
_BEYOND = ("s_aux", "position_bias")
"""What a layer may ask of its attention, and this one does not do: a call that asks does not count."""
_QUERIES = {"cpu": 64}
"""Of a segment attended at a time: what a causal mask hides from all of them is not computed."""
_GPU_QUERIES = 1024  # fewer kernels; bounds the mask


@dataclass(eq=False)
class Tree:
    """The segments of a packed row, and how often attention has been computed over them."""

    segments: tuple[Segment, ...]
    calls: int = 0
    """One a layer; fewer mean that some layer goes another way."""

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each segment."""
        return [segment.stop - segment.start for segment in self.segments]

    @cached_property
    def masks(self) -> dict[tuple[int, int, int | None], Tensor]:
        """Made once for all layers."""
        return {}


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row (see `Tree`), or SDPA where there is no tree; called by transformers.

    Args:
        module: the layer's attention.
        query: (1, H, T, D)
        key: (1, H or fewer, T, D)
        value: like the key.
        attention_mask: used only without a tree.
        tree: the row's segments.
        options: what the layer tells its attention: `scaling`, `sliding_window`, `softcap`, ...

    Returns:
        (1, T, H, D), and no weights.
    """
    cap, scale = options.get("softcap"), options.get("scaling")
    if tree is None and cap is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    n_times = query.shape[1] // key.shape[1]
    if n_times > 1:
        key, value = key.repeat_interleave(n_times, dim=1), value.repeat_interleave(n_times, dim=1)
    if tree is None:
        attended = _capped(query, key, value, attention_mask, cap=cap or 0.0, scale=scale)
    else:
        tree.calls += all(options.get(name) is None for name in _BEYOND)
        attended = _over_tree(query, key, value, tree, window=options.get("sliding_window"), cap=cap, scale=scale)
    return attended.transpose(1, 2), None


def _over_tree(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, *, window: int | None, cap: float | None, scale: float | None
) -> Tensor:
    """(1, H, T, D), segment after segment."""
    queries, keys, values = (states.split(tree.sizes, dim=2) for states in (query, key, value))
    attended = [
        _attend(
            queries[index],
            torch.cat([*(keys[part] for part in segment.ancestors), keys[index]], dim=2),
            torch.cat([*(values[part] for part in segment.ancestors), values[index]], dim=2),
            tree, window=window, cap=cap, scale=scale,
        )
        for index, segment in enumerate(tree.segments)
    ]  # fmt: skip
    return torch.cat(attended, dim=2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, *, window: int | None, cap: float | None, scale: float | None
) -> Tensor:
    """A segment's (1, H, t, D) queries over the (1, H, L, D) keys of its ancestors and itself."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    if n_queries == n_keys and cap is None and (window is None or window >= n_keys):
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    parts = []
    size = _QUERIES.get(query.device.type, _GPU_QUERIES)
    for start in range(0, n_queries, size):
        part = query[:, :, start : start + size]
        stop = n_keys - n_queries + start + part.shape[2]  # keys that the last of these queries sees
        mask = _mask(tree, part.shape[2], stop, window, query.device)
        seen = key[:, :, :stop], value[:, :, :stop]
        parts.append(
            scaled_dot_product_attention(part, *seen, attn_mask=mask, scale=scale)
            if cap is None
            else _capped(part, *seen, mask, cap=cap, scale=scale)
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _mask(tree: Tree, n_queries: int, n_keys: int, window: int | None, device: torch.device) -> Tensor:
    """(t, L) see `_causal`; made once for all layers and all segments of this shape."""
    shape = (n_queries, n_keys, window)
    if shape not in tree.masks:
        tree.masks[shape] = _causal(n_queries, n_keys, device, window=window)
    return tree.masks[shape]


def _causal(n_queries: int, n_keys: int, device: torch.device, *, window: int | None = None) -> Tensor:
    """(t, L) whether a query sees a key, where the last query stands at the last key."""
    places = torch.arange(n_keys, device=device)
    distance = places[n_keys - n_queries :, None] - places
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, cap: float, scale: float | None
) -> Tensor:
    """Attention whose logits are kept within +-cap by a tanh, as Gemma 2 has it; causal where no mask is given."""
    seen = _causal(query.shape[2], key.shape[2], query.device) if mask is None else mask
    logits = cap * torch.tanh(query @ key.transpose(2, 3) * ((scale or query.shape[-1] ** -0.5) / cap))
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1, dtype=torch.float32).to(query.dtype)
    return weights @ value


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
