"""Pairs of a right and a wrong response to the same problem: what objectives on preferences are trained on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

from freeprm.core.draws import Key, order, rollout_key, sample
from freeprm.core.graded import classes, graded, lacks, require_both
from freeprm.errors import ConfigError
from freeprm.types import Group, Rollout

T = TypeVar("T")


class Pair(NamedTuple):
    """A right response and a wrong one to the same problem."""

    chosen: Rollout
    rejected: Rollout


class Paired(NamedTuple):
    """The pairs, group after group, and how many of what gave none."""

    pairs: list[Pair]
    dropped: Counter[str]


def pair(groups: Sequence[Group], *, pairing: str = "cartesian", max_pairs: int | None = None, seed: int = 0) -> Paired:
    """Pairs of a right and a wrong response inside each group; ungraded responses take no part.

    Args:
        groups: graded groups.
        pairing: one of `PAIRINGS`. The paper's text pairs "each correct rollout with an incorrect counterpart"
            (`one_to_one`); its released code, and the costs it prints, take all of them (`cartesian`).
        max_pairs: at most so many pairs of one group, drawn at random; None for no limit.
        seed: of the draws.

    Raises:
        ConfigError: no such pairing, or `max_pairs` below 1.
        DataError: no right or no wrong response in the whole data.
    """
    make = choose(PAIRINGS, pairing, setting="pairing")
    if max_pairs is not None and max_pairs < 1:
        raise ConfigError(f"max_pairs: is {max_pairs}; expected a whole number from 1, or none for no limit")
    require_both(groups, given=groups)
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for group in groups:
        made = make(group, seed)
        kept = made if max_pairs is None else sample(made, max_pairs, key=_pair_key, seed=seed, purpose="max_pairs")
        dropped.update(_left_out(group, made, kept))
        if reason := lacks(group):
            dropped[reason] += 1
        pairs += kept
    return Paired(pairs, +dropped)


def _left_out(group: Group, made: Sequence[Pair], kept: Sequence[Pair]) -> dict[str, int]:
    """What of a group is in none of the pairs kept, each response and pair once."""
    right, wrong = classes(group.rollouts)
    return {
        "ungraded responses": len(group.rollouts) - len(graded(group.rollouts)),
        "responses without a counterpart": len(right) + len(wrong) - _n_used(made),
        "responses only in pairs above max_pairs": _n_used(made) - _n_used(kept),
        "pairs that the pairing does not make": len(right) * len(wrong) - len(made),
        "pairs above max_pairs": len(made) - len(kept),
    }


def _n_used(pairs: Sequence[Pair]) -> int:
    return len({rollout.sample_idx for one in pairs for rollout in one})


def _cartesian(group: Group, seed: int) -> list[Pair]:
    """Every right response with every wrong one, ordered by chosen, then rejected."""
    right, wrong = classes(group.rollouts)
    return [Pair(chosen, rejected) for chosen in right for rejected in wrong]


def _one_to_one(group: Group, seed: int) -> list[Pair]:
    """Each right response with a distinct wrong one, at random: as many pairs as the rarer class has responses."""
    right, wrong = (order(side, key=rollout_key, seed=seed, purpose="one_to_one") for side in classes(group.rollouts))
    return [Pair(chosen, rejected) for chosen, rejected in zip(right, wrong, strict=False)]


PAIRINGS: Mapping[str, Callable[[Group, int], list[Pair]]] = {"cartesian": _cartesian, "one_to_one": _one_to_one}


def choose(table: Mapping[str, T], name: str, *, setting: str) -> T:
    """The entry of a name.

    Raises:
        ConfigError: there is none; names those there are.
    """
    if name not in table:
        close = get_close_matches(name, table, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{setting}: no {name!r}; expected one of {', '.join(table)}.{hint}")
    return table[name]


def _pair_key(one: Pair) -> Key:
    return (*rollout_key(one.chosen), one.rejected.sample_idx)
