"""Groups of graded responses: their sizes, which of them can be trained on, and their pairs.

Everything left out is counted by reason. Reasons that begin with `groups` count problems, those that begin with `pairs`
count pairs, all others count responses; in each unit, kept and left out add up to what was there.

Random choices depend on a seed and the items, not on their order. Each item has a draw: a hash of the seed, the purpose
and the item's key. The items with the lowest draws are chosen, so a smaller choice is a subset of a larger one; each
operation has its own purpose, so choices are independent.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from freeprm.errors import ConfigError, DataError
from freeprm.io.config import lookup
from freeprm.types import Group, Rollout

T = TypeVar("T")
Key = tuple[object, ...]


class KeptGroups(NamedTuple):
    """The groups that are left, in order, none of them empty."""

    groups: list[Group]
    dropped: Counter[str]
    """Left out, by reason."""
    noted: Counter[str]
    """Further counts."""


class Pair(NamedTuple):
    """A right response and a wrong one to the same problem."""

    chosen: Rollout
    rejected: Rollout


class Paired(NamedTuple):
    """The pairs, group after group, and counts of what was dropped."""

    pairs: list[Pair]
    dropped: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of a data set."""

    problems: int
    responses: int
    pairs: int
    """Of a right and a wrong response to the same problem."""

    def __add__(self, other: "Size") -> "Size":
        return Size(
            problems=self.problems + other.problems,
            responses=self.responses + other.responses,
            pairs=self.pairs + other.pairs,
        )


def size(groups: Sequence[Group]) -> Size:
    """Problems, responses and pairs of groups."""
    return Size(problems=len(groups), responses=n_responses(groups), pairs=sum(map(n_pairs, groups)))


def trainable(groups: Sequence[Group], *, needs_pairs: bool, needs_both: bool = True) -> KeptGroups:
    """Drop ungraded and empty responses, and with `needs_pairs` groups without both classes.

    Args:
        groups: any number.
        needs_pairs: drop groups without both classes.
        needs_both: the whole data must have both classes, as for training on outcomes.

    Raises:
        DataError: no response is left in the whole data, a needed class is missing, or no group has both classes with
            `needs_pairs`.
    """
    n_graded = sum(len(graded(group.rollouts)) for group in groups)
    kept = keep(groups, lambda group: (r for r in graded(group.rollouts) if r.response.strip()))
    dropped = Counter({"ungraded responses": n_responses(groups) - n_graded})
    dropped["empty responses"] = n_graded - n_responses(kept)
    dropped["groups without a usable response"] = len(groups) - len(kept)
    if needs_both or not kept:
        require_both(kept, before=groups)
    if needs_pairs:
        for group in kept:
            if reason := lacks(group):
                dropped.update({reason: 1, f"responses in {reason}": len(group.rollouts)})
        kept = [group for group in kept if not lacks(group)]
    if not kept:
        raise DataError(
            f"no pairs: none of {len(groups)} groups has both a right and a wrong response. "
            "Sample more responses a problem, or train with an objective that needs no pairs, such as ce."
        )
    return KeptGroups(kept, +dropped, Counter())


def pair(groups: Sequence[Group], *, pairing: str = "cartesian", max_pairs: int | None = None, seed: int = 0) -> Paired:
    """Pairs of a right and a wrong response inside each group; ungraded responses are ignored.

    Args:
        groups: any number.
        pairing: one of `PAIRINGS`. The paper's text pairs "each correct rollout with an incorrect counterpart"
            (`one_to_one`); its released code, and the costs it prints, take all of them (`cartesian`).
        max_pairs: maximum of random pairs for one group; None for no limit.
        seed: of random choices.

    Raises:
        ConfigError: no such pairing, or `max_pairs` below 1.
        DataError: no right or no wrong response in the whole data.
    """
    make = lookup(PAIRINGS, pairing, setting="pairing")
    if max_pairs is not None and max_pairs < 1:
        raise ConfigError(f"max_pairs: is {max_pairs}; expected a whole number from 1, or none for no limit")
    require_both(groups, before=groups)
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for group in groups:
        made = kept = make(group, seed)
        if max_pairs is not None:
            kept = sample(made, max_pairs, key=_pair_key, seed=seed, purpose="max_pairs")
        right, wrong = classes(group.rollouts)
        n_used, n_kept = (len({rollout.sample_idx for one in some for rollout in one}) for some in (made, kept))
        dropped.update({
            "ungraded responses": len(group.rollouts) - len(right) - len(wrong),
            "responses without a counterpart": len(right) + len(wrong) - n_used,
            "responses only in pairs above max_pairs": n_used - n_kept,
            "pairs that the pairing does not make": len(right) * len(wrong) - len(made),
            "pairs above max_pairs": len(made) - len(kept),
        })  # fmt: skip
        if reason := lacks(group):
            dropped[reason] += 1
        pairs += kept
    return Paired(pairs, +dropped)


def _cartesian(group: Group, seed: int) -> list[Pair]:
    """Every right response with every wrong one, ordered by chosen, then rejected."""
    right, wrong = classes(group.rollouts)
    return [Pair(chosen, rejected) for chosen in right for rejected in wrong]


def _one_to_one(group: Group, seed: int) -> list[Pair]:
    """Each right response with a distinct wrong one, at random: as many pairs as the rarer class has responses."""
    right, wrong = (order(side, key=rollout_key, seed=seed, purpose="one_to_one") for side in classes(group.rollouts))
    return [Pair(chosen, rejected) for chosen, rejected in zip(right, wrong, strict=False)]


PAIRINGS: Mapping[str, Callable[[Group, int], list[Pair]]] = {"cartesian": _cartesian, "one_to_one": _one_to_one}


# What is in groups.


def keep(groups: Sequence[Group], choose: Callable[[Group], Iterable[Rollout]]) -> list[Group]:
    """The groups with only their chosen rollouts, in order, without empty groups."""
    left = []
    for group in groups:
        chosen = {rollout.sample_idx for rollout in choose(group)}
        left.append(replace(group, rollouts=tuple(r for r in group.rollouts if r.sample_idx in chosen)))
    return [group for group in left if group.rollouts]


def n_responses(groups: Iterable[Group]) -> int:
    """Responses in all groups."""
    return sum(len(group.rollouts) for group in groups)


def n_pairs(group: Group) -> int:
    """Pairs of a right and a wrong response of the group."""
    right, wrong = classes(group.rollouts)
    return len(right) * len(wrong)


def graded(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """The rollouts with a label."""
    return [rollout for rollout in rollouts if rollout.correct is not None]


def classes(rollouts: Iterable[Rollout]) -> tuple[list[Rollout], list[Rollout]]:
    """Right and wrong rollouts."""
    labelled = graded(rollouts)
    return [r for r in labelled if r.correct], [r for r in labelled if not r.correct]


def lacks(group: Group) -> str | None:
    """Why the group has no pair, or None."""
    right, wrong = classes(group.rollouts)
    if right and wrong:
        return None
    missing = "graded" if not (right or wrong) else "wrong" if right else "right"
    return f"groups without a {missing} response"


def require_both(groups: Sequence[Group], *, before: Sequence[Group]) -> None:
    """Raise a DataError if there is no right or no wrong response; its counts are of the groups `before` filtering."""
    right, wrong = classes(rollout for group in groups for rollout in group.rollouts)
    if not right or not wrong:
        unusable = n_responses(before) - len(right) - len(wrong)
        raise DataError(
            f"{len(right)} right and {len(wrong)} wrong among {n_responses(before)} responses in {len(before)} groups "
            f"({unusable} ungraded or empty); expected at least one right and one wrong. Grade the responses, or "
            "sample more of them, on problems that the generator sometimes solves and sometimes does not."
        )


# Random choices.


def draw(seed: int, purpose: str, key: Key) -> bytes:
    """An item's draw: 16 bytes."""
    return hashlib.blake2b(json.dumps([seed, purpose, *key]).encode(), digest_size=16).digest()


def order(items: Sequence[T], *, key: Callable[[T], Key], seed: int, purpose: str) -> list[T]:
    """The items by ascending draw."""
    return sorted(items, key=lambda item: draw(seed, purpose, key(item)))


def sample(items: Sequence[T], count: int, *, key: Callable[[T], Key], seed: int, purpose: str) -> list[T]:
    """The `count` items with the lowest draws, or all if there are fewer, in their order."""
    if count >= len(items):
        return list(items)
    lowest = order(range(len(items)), key=lambda index: key(items[index]), seed=seed, purpose=purpose)[:count]
    return [items[index] for index in sorted(lowest)]


def rollout_key(rollout: Rollout) -> Key:
    """Identifies a response."""
    return (rollout.problem_id, rollout.sample_idx)


def group_key(group: Group) -> Key:
    """Identifies a group."""
    return (group.problem_id,)


def _pair_key(one: Pair) -> Key:
    return (*rollout_key(one.chosen), one.rejected.sample_idx)
