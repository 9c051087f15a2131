"""Random choices that depend on a seed and on what is chosen from, and on no order.

Each item has a draw: bytes that look random, from a hash of the seed, the purpose and the item's key. Choosing the
items with the lowest draws makes a smaller choice a subset of a larger one; a purpose of its own for each operation
makes the choices of one independent of those of another.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from freeprm.types import Group, Rollout

T = TypeVar("T")
Key = tuple[object, ...]


def draw(seed: int, purpose: str, key: Key) -> bytes:
    """16 bytes to sort by."""
    return hashlib.blake2b(json.dumps([seed, purpose, *key]).encode(), digest_size=16).digest()


def order(items: Sequence[T], *, key: Callable[[T], Key], seed: int, purpose: str) -> list[T]:
    """The items by ascending draw."""
    return sorted(items, key=lambda item: draw(seed, purpose, key(item)))


def sample(items: Sequence[T], count: int, *, key: Callable[[T], Key], seed: int, purpose: str) -> list[T]:
    """The `count` items with the lowest draws, or all where there are fewer; in the order given."""
    if count >= len(items):
        return list(items)
    lowest = sorted(range(len(items)), key=lambda index: draw(seed, purpose, key(items[index])))[:count]
    return [items[index] for index in sorted(lowest)]


def rollout_key(rollout: Rollout) -> Key:
    """What tells a response from all others."""
    return (rollout.problem_id, rollout.sample_idx)


def group_key(group: Group) -> Key:
    """What tells a group from all others."""
    return (group.problem_id,)
