"""Key-value cache of texts: a row for each, with its own length, so that texts can enter and leave.

transformers' own cache is copied for every token, and has one length for all rows. Here a new token is written in
place behind a row's others, and everything behind it is masked.

**A row's numbers do not depend on the other rows.** A matrix product may round differently for another number of rows
or keys, since the library picks another kernel. So a pass has one of few sizes, padded with unused rows; and a size
below the largest is used only if it gave the same bits when it was first needed. This is what lets an interrupted run
draw only its missing samples, and end in the same bytes.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from math import prod
from mmap import mmap
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from freeprm.models.loading import Backbone

_UNIT_ROWS = 16  # a multiple of the rows in registers and tiles; few rows use another kernel
_UNIT_WIDTH = 32  # keys
_CPU_PASS = 256  # rows; more are no faster, and would all be as wide as the longest
_PARTS = 8  # sizes up to the largest number of rows, and in each power of two of keys
_FEW = 16  # rows to test whether the number of keys matters


class CachedTexts(Protocol):
    """The cache of U texts."""

    def enter(self, prompts: DynamicCache, which: Sequence[int], lengths: Sequence[int]) -> None:
        """Add encoded prompts as texts.

        Args:
            prompts: P rows, padded on the left.
            which: rows to add, in order.
            lengths: (P,) tokens.
        """
        ...

    def part(self, parents: Tensor) -> None:
        """Replace the texts: new text i continues the old text `parents[i]`; the others are dropped."""
        ...

    def read(self, tokens: Tensor) -> Tensor:
        """(U, V) logits after appending a token to each text, (U,)."""
        ...


def cached_texts(backbone: Backbone, *, capacity: int, width: int) -> CachedTexts:
    """An empty cache.

    Args:
        backbone: the model.
        capacity: maximum of texts; 1 if `stands_alone`.
        width: maximum of tokens of a text.
    """
    return Alone(backbone) if stands_alone(backbone) else CachedRows(backbone, capacity=capacity, width=width)


def stands_alone(backbone: Backbone) -> bool:
    """Whether a text needs a pass of its own: the model keeps more than keys and values, or attends in chunks."""
    config = backbone.model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    windows = {layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)}
    chunked = getattr(config, "attention_chunk_size", None) is not None
    return not layers or not plain or chunked or len(windows) > 1


class Alone:
    """One text, in transformers' own cache."""

    def __init__(self, backbone: Backbone):
        self._backbone = backbone
        self._cache = DynamicCache()
        self._length = 0

    def enter(self, prompts: DynamicCache, which: Sequence[int], lengths: Sequence[int]) -> None:
        """See `CachedTexts`; P is 1."""
        (self._length,) = lengths
        self._cache = deepcopy(prompts)

    def part(self, parents: Tensor) -> None:
        """See `CachedTexts`: one text stays one."""

    def read(self, tokens: Tensor) -> Tensor:
        """See `CachedTexts`."""
        position = torch.full_like(tokens, self._length)[:, None]
        self._length += 1
        logits: Tensor = self._backbone.model(
            input_ids=tokens[:, None], position_ids=position, past_key_values=self._cache, use_cache=True,
            attention_mask=torch.ones(1, self._length, dtype=torch.bool, device=tokens.device),
        ).logits  # fmt: skip
        return logits[:, -1]


class CachedRows:
    """Texts as rows of one buffer in each layer."""

    def __init__(self, backbone: Backbone, *, capacity: int, width: int):
        self._model = backbone.model
        device = backbone.model.device
        self._largest = min(capacity, _CPU_PASS) if device.type == "cpu" else capacity  # rows of a pass
        self._capacity = -(-capacity // self._largest) * self._largest
        self._width = _wide(width + 1)  # one key is always masked: without a mask another kernel is used
        self._lengths = torch.zeros(self._capacity, dtype=torch.long, device=device)
        self._n = 0
        self._view = _PassView(self._capacity, self._width)
        self._layers: list[_Layer] = []
        self._windows = _windows(backbone.model.config.get_text_config(decoder=True))
        self._masks_windows = self._windows != {None} and "flash" not in backbone.model.config._attn_implementation
        self._is_eager = backbone.model.config._attn_implementation == "eager"
        self._same_size: dict[int, bool] = {self._largest: True}
        self._same_width: dict[int, bool] = {self._width: True}

    def enter(self, prompts: DynamicCache, which: Sequence[int], lengths: Sequence[int]) -> None:
        """See `CachedTexts`."""
        if not self._layers:
            self._layers = [_Layer(layer, self._view) for layer in prompts.layers]  # type: ignore[arg-type]
        for prompt in which:
            for ours, theirs in zip(self._layers, prompts.layers, strict=True):
                ours.fill(self._n, theirs, prompt, lengths[prompt])  # type: ignore[arg-type]
            self._lengths[self._n] = lengths[prompt]
            self._n += 1

    def part(self, parents: Tensor) -> None:
        """See `CachedTexts`; only rows that move are copied."""
        moved = (parents != torch.arange(len(parents), device=parents.device)).nonzero()[:, 0]
        if len(moved):
            longest = int(self._lengths.max())
            for layer in self._layers:
                layer.copy(parents[moved], moved, longest)
        self._lengths[: len(parents)] = self._lengths[parents]
        self._lengths[len(parents) :] = 0
        self._n = len(parents)

    def read(self, tokens: Tensor) -> Tensor:
        """See `CachedTexts`."""
        parts = [self._read(tokens[start : start + self._largest], start) for start in range(0, self._n, self._largest)]
        self._lengths[: self._n] += 1
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _read(self, tokens: Tensor, start: int) -> Tensor:
        """Logits of some texts, by the smallest pass that gives the same bits as the largest."""
        longest = int(self._lengths[start : start + len(tokens)].max()) + 1
        for width in _widths(longest + 1, self._width):
            if self._is_same_width(width, tokens, start):
                break
        for size in _sizes(len(tokens), self._largest):
            if self._is_same_size(size, width, tokens, start):
                break
        return self._pass(tokens, start, size, width)

    def _is_same_size(self, size: int, width: int, tokens: Tensor, start: int) -> bool:
        if size not in self._same_size:
            small, large = (self._pass(tokens, start, n, width) for n in (size, self._largest))
            self._same_size[size] = torch.equal(small, large)
        return self._same_size[size]

    def _is_same_width(self, width: int, tokens: Tensor, start: int) -> bool:
        if width not in self._same_width:
            few = tokens[: min(_FEW, self._largest)]
            size = min(_FEW, self._largest)
            narrow, wide = (self._pass(few, start, size, n) for n in (width, self._width))
            self._same_width[width] = torch.equal(narrow, wide)
        return self._same_width[width]

    def _pass(self, tokens: Tensor, start: int, size: int, width: int) -> Tensor:
        """(U, V) logits of a pass with `size` rows, of which the first U are texts, and `width` keys."""
        view, n = self._view, len(tokens)
        view.rows, view.width = slice(start, start + size), width
        view.texts = torch.arange(start, start + n, device=tokens.device)
        view.new = self._lengths[start : start + n]
        ids = torch.nn.functional.pad(tokens, (0, size - n))
        positions = self._lengths[start : start + size]
        logits: Tensor = self._model(
            input_ids=ids[:, None], attention_mask=self._mask(positions, width), position_ids=positions[:, None],
            past_key_values=Cache(layers=list(self._layers)), use_cache=True,
        ).logits  # fmt: skip
        return logits[:n, -1]

    def _mask(self, positions: Tensor, width: int) -> Tensor | dict[str, Tensor]:
        """Causal mask of each row's new token, within each layer's sliding window.

        transformers measures a window from the last key of the buffer, so masks of windows are made here.
        """
        keys = torch.arange(width, device=positions.device)
        full = keys <= positions[:, None]  # (B, width)
        if not self._masks_windows:
            return full
        masks = {
            window: self._expanded(full if window is None else full & (keys > positions[:, None] - window))
            for window in self._windows
        }
        if len(masks) == 1:
            return next(iter(masks.values()))
        return {f"{'full' if window is None else 'sliding'}_attention": mask for window, mask in masks.items()}

    def _expanded(self, mask: Tensor) -> Tensor:
        """(B, 1, 1, width); additive for eager attention."""
        mask = mask[:, None, None]
        if not self._is_eager:
            return mask
        dtype = self._model.dtype
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


class _PassView:
    """The part of the buffers that a pass reads and writes, the same in every layer."""

    def __init__(self, capacity: int, full_width: int):
        self.capacity, self.full_width = capacity, full_width
        self.rows, self.width = slice(0, 0), 1
        """Rows and keys that are read."""
        self.texts = self.new = torch.zeros(0, dtype=torch.long)
        """Rows that are texts, and the position of their new token."""


class _Layer(DynamicLayer):
    """One layer's keys and values, (capacity, heads, width, head size)."""

    def __init__(self, like: DynamicLayer, view: _PassView):
        super().__init__()
        assert like.keys is not None
        assert like.values is not None
        self.dtype, self.device = like.keys.dtype, like.keys.device
        self._all = tuple(
            _zeros(states, (view.capacity, states.shape[1], view.full_width, states.shape[3]))
            for states in (like.keys, like.values)
        )
        self._view = view
        self.is_initialized = True

    def fill(self, row: int, prompts: DynamicLayer, prompt: int, length: int) -> None:
        """Write a prompt to a row."""
        for ours, theirs in zip(self._all, (prompts.keys, prompts.values), strict=True):
            assert theirs is not None
            ours[row, :, :length] = theirs[prompt, :, theirs.shape[2] - length :]

    def copy(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy rows to others."""
        for states in self._all:
            states[target, :, :length] = states[source, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write each row's new token."""
        view = self._view
        for states, new in zip(self._all, (key_states, value_states), strict=True):
            states[view.texts, :, view.new] = new[: len(view.texts), :, 0]
        keys, values = (states[view.rows, :, : view.width] for states in self._all)
        return keys, values

    def get_seq_length(self) -> int:
        """In transformers' sense: the keys before the new one."""
        return self._view.width - 1


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros, since masked values are multiplied by 0 and must not be NaN; memory is allocated when written."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # Not numpy's zeros: it asks for pages of 2 MB, so that a row's first token would allocate the whole row.
    return torch.frombuffer(mmap(-1, prod(shape) * like.itemsize), dtype=like.dtype).view(shape)


def _sizes(n: int, largest: int) -> list[int]:
    """Sizes of a pass that hold n texts, ascending."""
    parts = {-(-largest * part // (_PARTS * _UNIT_ROWS)) * _UNIT_ROWS for part in range(1, _PARTS)}
    return sorted(size for size in {*parts, largest} if n <= size <= largest)


def _widths(n: int, largest: int) -> Iterator[int]:
    """Widths of a pass that hold n keys, ascending, in growing steps."""
    while (n := _wide(n)) < largest:
        yield n
        n += 1
    yield largest


def _wide(n: int) -> int:
    unit = max(_UNIT_WIDTH, (1 << (n.bit_length() - 1)) // _PARTS)
    return -(-n // unit) * unit


def _windows(config: PreTrainedConfig) -> set[int | None]:
    """Sliding windows of the layers; None is full attention."""
    layers = DynamicCache(config=config).layers
    return {layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None for layer in layers}
