"""Which prompts are encoded together, and how many samples are drawn at a time within the memory that there is.

The plan is made from all samples of a run, drawn already or not, and whoever carries it out: so the numbers of what is
missing are those that an uninterrupted run computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from freeprm.engines.hf.decoding import Room, Wanted
from freeprm.engines.hf.drawing import sample_identity

_PREFILL_TOKENS = 32_768  # of prompts encoded together, padding included
_PARTS = 8  # prompts are encoded for so large a part of the samples that are drawn at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be drawn at a time."""

    max_samples: int
    cache_bytes: int
    """Memory of the key-value cache."""
    bytes_per_token: int
    """That one token of one sample takes in it."""
    max_new_tokens: int
    max_length: int
    """Tokens of a text; see `Backbone.reach`."""


class Plan(NamedTuple):
    """See `plan`."""

    groups: list[list[Wanted]]
    """Prompts that are encoded together, in order."""
    room: Room


def plan(wanted: Sequence[Wanted], limits: Limits, *, n_workers: int = 1) -> Plan:
    """Groups of prompts, longest first, so that what does not fit the memory fails at once.

    Where samples go on from the beginnings of responses, those of one prompt stand together, so that what they share
    is encoded once.
    """
    n_samples = sum(len(item.sample_idxs) for item in wanted)
    longest = max((len(item.ids) for item in wanted), default=0)
    tokens = min(longest + limits.max_new_tokens, limits.max_length)
    fitting = limits.cache_bytes // (limits.bytes_per_token * max(1, tokens))
    room = Room(samples=max(1, min(limits.max_samples, fitting, ceil(n_samples / n_workers))), tokens=tokens)
    return Plan(_groups(wanted, room), room)


def _groups(wanted: Sequence[Wanted], room: Room) -> list[list[Wanted]]:
    in_families = any(item.prefix for item in wanted)
    groups: list[list[Wanted]] = []
    longest = n_samples = 0
    for item in _in_families(wanted) if in_families else sorted(wanted, key=lambda item: -len(item.ids)):
        group = groups[-1] if groups else []
        longest, n_samples = max(longest, len(item.ids)), n_samples + len(item.sample_idxs)
        if in_families:
            together = bool(group) and _family(group[0]) == _family(item)
        else:
            together = n_samples <= room.samples // _PARTS
        if room.samples > 1 and group and together and longest * (len(group) + 1) <= _PREFILL_TOKENS:
            group.append(item)
        else:
            groups.append([item])
            longest, n_samples = len(item.ids), len(item.sample_idxs)
    return groups


def _in_families(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Those of one prompt together, in order of what they begin with."""
    families: dict[bytes, list[Wanted]] = {}
    for item in wanted:
        families.setdefault(_family(item), []).append(item)
    longest_first = sorted(families.values(), key=lambda family: -max(len(item.ids) for item in family))
    return [item for family in longest_first for item in sorted(family, key=lambda item: (item.ids, item.problem_id))]


def _family(item: Wanted) -> bytes:
    return sample_identity(item.prompt, sample_idx=0, seed=0)
