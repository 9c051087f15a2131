"""Many prompts with responses as one row of tokens, in which a shared beginning stands once: a prefix tree.

A segment is a run of tokens that the same responses share: a prompt with all its responses, or the first steps that
some of them have in common, or the rest of one. It sees the segments that it continues, and itself causally. So there
is no padding, a prompt is read once for its N responses, and what is given twice is read once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from freeprm.models.encoding import Encoded

Index = NDArray[np.int64]
LEAST_SHARED = 32
"""Tokens that must be shared for a segment of their own: each one costs some calls in every layer."""


class Segment(NamedTuple):
    """Tokens [start, stop) of the row, and what they continue."""

    start: int
    stop: int
    ancestors: tuple[int, ...]
    """Segments that it continues, from the first; they stand before it in the row."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """A prefix tree laid out as one row of T tokens, n of which are tokens of a response."""

    ids: Index
    """(T,)"""
    positions: Index
    """(T,) place of each token in its own prompt and response, from 0."""
    segments: tuple[Segment, ...]
    """They tile the row."""
    targets: Index
    """(n,) ids of the tokens of responses."""
    predictors: Index
    """(n,) the token of the row that predicts each of them: the one before it in its response or prompt."""
    answering: Index
    """(n,) the token of the row that each of them is."""
    places: tuple[Index, ...]
    """For each prompt and response given, (T_response,) where its tokens stand among the n."""

    def __len__(self) -> int:
        return len(self.ids)


def pack(batch: Sequence[Encoded], *, least_shared: int = LEAST_SHARED) -> Packed:
    """Lay out prompts with responses so that what they share at their beginning stands once.

    Args:
        batch: B of them, at least one.
        least_shared: shorter shared parts are repeated.
    """
    order = sort(batch)
    items = [batch[index].ids for index in order]
    tree = _Tree(items, shared(items), least_shared)
    ids = np.concatenate([items[item][first:last] for item, first, last in tree.texts]).astype(np.int64)
    positions = np.concatenate([np.arange(first, last) for _, first, last in tree.texts])
    before = np.arange(len(ids)) - 1
    for segment in tree.segments:
        before[segment.start] = tree.segments[segment.ancestors[-1]].stop - 1 if segment.ancestors else -1
    rows = [
        np.concatenate([np.arange(*tree.segments[part][:2]) for part in path])[batch[index].n_prompt :]
        for index, path in zip(order, tree.paths, strict=True)
    ]
    answering, places = np.unique(np.concatenate(rows), return_inverse=True)
    parts = np.split(places, np.cumsum([len(row) for row in rows])[:-1])
    by_index = dict(zip(order, parts, strict=True))
    return Packed(
        ids=ids, positions=positions, segments=tuple(tree.segments), targets=ids[answering],
        predictors=before[answering], answering=answering, places=tuple(by_index[index] for index in range(len(batch))),
    )  # fmt: skip


def packed_batches(encoded: Sequence[Encoded], *, token_budget: int) -> Iterator[list[int]]:
    """Indices in batches that have at most so many tokens when packed; one that is longer is a batch of its own.

    Responses that share a beginning stand together, so that a prompt is seldom read twice.
    """
    order = sort(encoded)
    common = shared([encoded[index].ids for index in order])
    batch: list[int] = []
    n_tokens = 0
    for index, n_shared in zip(order, common, strict=True):
        new = len(encoded[index].ids) - (n_shared if batch else 0)
        if batch and n_tokens + new > token_budget:
            yield batch
            batch, n_tokens, new = [], 0, len(encoded[index].ids)
        batch.append(index)
        n_tokens += new
    if batch:
        yield batch


def sort(encoded: Sequence[Encoded]) -> list[int]:
    """Indices in an order in which those that share a beginning stand together."""
    return sorted(range(len(encoded)), key=lambda index: encoded[index].ids.tobytes())


def shared(items: Sequence[NDArray[np.int32]]) -> list[int]:
    """(B,) tokens that each item, of sorted ones, shares with the one before it at its beginning; 0 for the first."""
    common = [0] * min(1, len(items))
    for left, right in pairwise(items):
        n = min(len(left), len(right))
        different = np.flatnonzero(left[:n] != right[:n])
        common.append(int(different[0]) if len(different) else n)
    return common


class _Tree:
    """The segments of sorted items.

    Args:
        items: B arrays of ids, sorted.
        common: see `shared`.
        least_shared: see `pack`.
    """

    def __init__(self, items: Sequence[NDArray[np.int32]], common: Sequence[int], least_shared: int):
        self._items, self._common, self._least = items, common, least_shared
        self.segments: list[Segment] = []
        self.texts: list[tuple[int, int, int]] = []
        """For each segment an item that has it, and where: tokens [first, last) of that item."""
        self.paths: list[tuple[int, ...]] = [()] * len(items)
        """For each item the segments that make it up."""
        self._grow()

    def _grow(self) -> None:
        """Open ranges of items that share `depth` tokens under a path, until each is one item or a few alike."""
        todo: list[tuple[int, int, int, tuple[int, ...]]] = [(0, len(self._items), 0, ())]
        while todo:
            low, high, depth, path = todo.pop()
            reach = min((self._common[row] for row in range(low + 1, high)), default=len(self._items[low]))
            if reach == len(self._items[high - 1]) or reach - depth >= self._least:  # one item, or all share enough
                path, depth = self._add(low, depth, reach, path), reach
            while low < high and len(self._items[low]) == depth:  # sorted, so these come first
                self.paths[low] = path
                low += 1
            cuts = [row for row in range(low + 1, high) if self._is_cut(row, depth)]
            ranges = list(zip([low, *cuts], [*cuts, high], strict=True)) if low < high else []
            todo += [(start, stop, depth, path) for start, stop in reversed(ranges)]

    def _is_cut(self, row: int, depth: int) -> bool:
        """Whether an item goes another way than the one before it; equal ones never do."""
        return self._common[row] < min(depth + self._least, len(self._items[row]))

    def _add(self, item: int, first: int, last: int, path: tuple[int, ...]) -> tuple[int, ...]:
        if first == last:
            return path
        start = self.segments[-1].stop if self.segments else 0
        self.segments.append(Segment(start, start + last - first, path))
        self.texts.append((item, first, last))
        return (*path, len(self.segments) - 1)
