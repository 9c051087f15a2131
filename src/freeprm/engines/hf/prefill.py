"""Encoding of prompts, and of beginnings of responses, before the first token is drawn.

A model that reads packed rows (see `models.packing`) encodes common beginnings once: the beginnings of one response
contain each other, so only the longest is read, and the others take its keys and values up to their end. Any other
model reads each text by itself, padded on the left.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from freeprm.engines.hf.cache import stands_alone
from freeprm.errors import ModelError
from freeprm.models.encoding import Encoded
from freeprm.models.loading import Backbone
from freeprm.models.packed_forward import Tree, row
from freeprm.models.packing import pack, shared
from freeprm.models.routes import prepare

_LEAST_SHARED = 1  # token worth sharing; the extra segments cost less than what follows a prefill


class Prefilled(NamedTuple):
    """P encoded texts."""

    logits: Tensor
    """(P, V) of the next token."""
    cache: DynamicCache
    """P rows, padded on the left."""
    mask: Tensor
    """(P, longest) bool, False on padding."""
    n_read: list[int]
    """(P,) tokens that went through the model for each; shared ones count for the first text."""


class PromptText(Protocol):
    """A text to encode."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Of a prompt and the beginning of a response."""
        ...

    @property
    def prefix(self) -> str:
        """The beginning of a response."""
        ...


def prefill(backbone: Backbone, batch: Sequence[PromptText]) -> Prefilled:
    """Encode P texts; a ModelError if the model has no key-value cache of transformers' kind."""
    longest = max(len(item.ids) for item in batch)
    if any(item.prefix for item in batch) and _keeps_all(backbone) and prepare(backbone.model, longest=longest):
        return _read_tree(backbone, batch)
    return _read_padded(backbone, batch)


def _keeps_all(backbone: Backbone) -> bool:
    """Whether every layer keeps the keys and values of all tokens."""
    layers = DynamicCache(config=backbone.model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def _read_padded(backbone: Backbone, batch: Sequence[PromptText]) -> Prefilled:
    longest = max(len(item.ids) for item in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for index, item in enumerate(batch):
        ids[index, longest - len(item.ids) :] = torch.tensor(item.ids)
    mask = _mask(backbone, batch)
    # With a sliding window everything is kept as well, so that rows of other lengths can be added; see `cache`.
    cache = DynamicCache(config=backbone.model.config) if stands_alone(backbone) else DynamicCache()
    logits = backbone.model(
        input_ids=ids.to(mask.device), attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache, use_cache=True, logits_to_keep=1,
    ).logits[:, -1]  # fmt: skip
    if not any(getattr(layer, "is_initialized", False) for layer in cache.layers):
        raise ModelError(
            f"{backbone.source}: a {type(backbone.model).__name__}, which keeps no key-value cache of transformers' "
            "kind; this engine needs one"
        )
    return Prefilled(logits, cache, mask, [len(item.ids) for item in batch])


def _read_tree(backbone: Backbone, batch: Sequence[PromptText]) -> Prefilled:
    """Read all texts as one packed row, each common beginning once; then copy each text's keys and values to a row."""
    device = backbone.model.device
    items = [np.array(item.ids, dtype=np.int32) for item in batch]
    leaf_of, new = _leaves(items)
    leaves = sorted(set(leaf_of))
    packed = pack([_whole(items[leaf]) for leaf in leaves], least_shared=_LEAST_SHARED)
    positions = dict(zip(leaves, (packed.answering[index] for index in packed.places), strict=True))  # in that row
    paths = [positions[leaf][: len(item)] for leaf, item in zip(leaf_of, items, strict=True)]
    tree = Tree(packed.segments)
    cache = DynamicCache(config=backbone.model.config)
    logits = backbone.model(
        **{**row(packed, tree, device), "use_cache": True},
        past_key_values=cache,
        logits_to_keep=torch.tensor([path[-1] for path in paths], device=device),
    ).logits[0]
    if tree.calls != len(cache.layers):
        raise ModelError(f"{backbone.source}: {tree.calls} of {len(cache.layers)} layers read the packed row")
    rows = _gathered(cache, torch.from_numpy(_padded(paths)).to(device))
    return Prefilled(logits, rows, _mask(backbone, batch), new)


def _leaves(items: Sequence[NDArray[np.int32]]) -> tuple[list[int], list[int]]:
    """For each text, the longest text that begins with it (or itself), and the number of tokens read for it."""
    order = sorted(range(len(items)), key=lambda index: items[index].tobytes())
    common = [*shared([items[index] for index in order]), 0]  # tokens shared with the text before, in this order
    leaf_of, new = [0] * len(items), [0] * len(items)
    leaf, n_shared = -1, 0
    for rank in range(len(order) - 1, -1, -1):  # a text comes before those that begin with it
        index = order[rank]
        if common[rank + 1] < len(items[index]):
            leaf = index
        leaf_of[index] = leaf
    for rank, index in enumerate(order):
        n_shared = min(n_shared, common[rank])  # with any leaf before
        if leaf_of[index] == index:
            new[index], n_shared = len(items[index]) - n_shared, len(items[index])
    return leaf_of, new


def _whole(ids: NDArray[np.int32]) -> Encoded:
    """A text without a prompt, so that packing returns the positions of all tokens."""
    return Encoded(name="a beginning", ids=ids, n_prompt=0, offsets=np.zeros((len(ids), 2), dtype=np.int32))


def _padded(paths: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(P, longest), padded on the left with 0; padding is masked."""
    longest = max(map(len, paths))
    return np.stack([np.pad(path, (longest - len(path), 0)) for path in paths])


def _gathered(cache: DynamicCache, positions: Tensor) -> DynamicCache:
    """Rows of keys and values, by (P, longest) positions in the packed row."""
    rows = DynamicCache()
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        kept = DynamicLayer()
        kept.update(layer.keys[0][:, positions].transpose(0, 1), layer.values[0][:, positions].transpose(0, 1))
        rows.layers.append(kept)
    return rows


def _mask(backbone: Backbone, batch: Sequence[PromptText]) -> Tensor:
    lengths = torch.tensor([len(item.ids) for item in batch])
    longest = int(lengths.max())
    return (torch.arange(longest) >= longest - lengths[:, None]).to(backbone.model.device)
