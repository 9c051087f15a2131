"""Which samples share a batch: similar prompts together, within the memory that the cache may take.

The plan is made from all samples of a run and does not depend on how many processes carry it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil

from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.drawing import sample_identity

_PREFILL_TOKENS = 32_768  # of prompts in a batch, padding included
_EVEN = 2  # batches come in even numbers, of one size, so that two processes share a small job fairly


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a batch may hold."""

    max_rows: int
    """Samples."""
    cache_bytes: int
    """Memory of the key-value cache."""
    bytes_per_token: int
    """That one token of one sample takes in it."""
    max_new_tokens: int


def plan(wanted: Sequence[Wanted], limits: Limits) -> list[list[Wanted]]:
    """Batches of samples, longest prompts first, so that what does not fit the memory fails at once.

    A problem's samples stay together unless a batch is full. Where samples go on from the beginnings of responses,
    those of one prompt stand together, so that what they share is encoded once.
    """
    ordered = _ordered(wanted)
    rows = [(item, sample_idx) for item in ordered for sample_idx in item.sample_idxs]
    n_batches = _EVEN * ceil(len(rows) / (_EVEN * limits.max_rows))
    size = ceil(len(rows) / n_batches) if rows else 0
    batches: list[list[Wanted]] = []
    start = 0
    while start < len(rows):
        longest = max(len(item.ids) for item, _ in rows[start : start + size])
        stop = min(start + _capacity(longest, size, limits), len(rows))
        batches.append(_gathered(_within_prefill(rows[start:stop])))
        start += sum(len(item.sample_idxs) for item in batches[-1])
    return batches


def _ordered(wanted: Sequence[Wanted]) -> list[Wanted]:
    if not any(item.prefix for item in wanted):
        return sorted(wanted, key=lambda item: -len(item.ids))
    families: dict[bytes, list[Wanted]] = {}
    for item in wanted:
        families.setdefault(sample_identity(item.prompt, sample_idx=0, seed=0), []).append(item)
    longest_first = sorted(families.values(), key=lambda family: -max(len(item.ids) for item in family))
    return [item for family in longest_first for item in sorted(family, key=lambda item: (item.ids, item.problem_id))]


def _capacity(prompt_length: int, size: int, limits: Limits) -> int:
    """Samples whose cache fits, one at least."""
    per_row = limits.bytes_per_token * (prompt_length + limits.max_new_tokens)
    return max(1, min(size, limits.cache_bytes // per_row))


def _within_prefill(rows: Sequence[tuple[Wanted, int]]) -> Sequence[tuple[Wanted, int]]:
    """The first rows whose prompts, padded to the longest one's length, stay within the limit; one prompt at least."""
    allowed = max(1, _PREFILL_TOKENS // max(len(item.ids) for item, _ in rows))
    n_prompts = 0
    for index, (item, _) in enumerate(rows):
        if index == 0 or item is not rows[index - 1][0]:
            n_prompts += 1
        if n_prompts > allowed:
            return rows[:index]
    return rows


def _gathered(rows: Sequence[tuple[Wanted, int]]) -> list[Wanted]:
    groups = groupby(rows, key=lambda row: id(row[0]))
    parts = [list(group) for _, group in groups]
    return [replace(part[0][0], sample_idxs=tuple(sample_idx for _, sample_idx in part)) for part in parts]
