"""Graded responses to training data: pairs, balance, deduplication, subsampling, and what can be trained on.

Every random choice is a draw from a hash of (seed, problem_id, sample_idx), so that the order of the input does not
matter, and a smaller share of the data is a subset of a larger one. Nothing is dropped without being counted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

from freeprm.errors import ConfigError, DataError
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

    @property
    def groups(self) -> list[Group]:
        """Each pair as a group of two, so that training on chosen pairs takes the same path as on whole groups."""
        return [
            Group(problem_id=pair.chosen.problem_id, prompt=pair.chosen.prompt, rollouts=tuple(pair))
            for pair in self.pairs
        ]


class Kept(NamedTuple):
    """The groups that are left, in the order given, none of them empty, and how many of what were dropped."""

    groups: list[Group]
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
    make = _choose(PAIRINGS, pairing, setting="pairing")
    if max_pairs is not None and max_pairs < 1:
        raise ConfigError(f"max_pairs: is {max_pairs}; expected a whole number from 1, or none for no limit")
    _require_both(groups, given=groups)
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for group in groups:
        dropped.update(_lacks(group))
        made = make(group, seed)
        kept = made if max_pairs is None else _sample(made, max_pairs, key=_pair_key, seed=seed)
        used = {rollout.sample_idx for one in made for rollout in one}
        dropped["responses without a counterpart"] += len(_graded(group.rollouts)) - len(used)
        dropped["pairs above max_pairs"] += len(made) - len(kept)
        pairs += kept
    return Paired(pairs, +dropped)


def balance(groups: Sequence[Group], *, how: str, seed: int = 0) -> Kept:
    """Drop responses of the majority class at random until right and wrong are 50/50.

    Args:
        groups: graded groups.
        how: one of `BALANCES`: `none`; `dataset`, over all groups together; `instruction`, inside each group, where
            a group with one class goes entirely.
        seed: of the draws.

    Raises:
        ConfigError: no such way of balancing.
        DataError: no right or no wrong response in the whole data.

    Source: Yuan et al. 2024, arXiv:2412.01981, section 4.1 (CE, dataset-wise and instruction-wise balanced).
    """
    method = _choose(BALANCES, how, setting="balance")
    _require_both(groups, given=groups)
    return method(groups, seed)


def deduplicate(groups: Sequence[Group]) -> Kept:
    """Keep the first (by `sample_idx`) of equal responses to a problem; one cut off is not equal to one that ended."""
    dropped: Counter[str] = Counter()

    def firsts(group: Group) -> Iterable[Rollout]:
        first: dict[tuple[str, bool], Rollout] = {}
        for rollout in sorted(group.rollouts, key=lambda rollout: rollout.sample_idx):
            seen = first.setdefault((rollout.response, rollout.truncated), rollout)
            if seen is not rollout:
                dropped["duplicate responses"] += 1
                dropped["duplicate responses with another label"] += seen.correct is not rollout.correct
        return first.values()

    return Kept(_keep(groups, firsts), +dropped)


def subsample_instructions(groups: Sequence[Group], share: float, *, seed: int = 0) -> Kept:
    """Keep round(share * P) of the P groups, at least one; smaller shares are subsets of larger ones.

    Raises:
        ConfigError: `share` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share: is {share}; expected a number above 0, at most 1")
    kept = _sample(groups, max(1, round(share * len(groups))), key=lambda group: (group.problem_id,), seed=seed)
    return Kept(kept, +Counter({"groups left out by subsampling": len(groups) - len(kept)}))


def subsample_responses(groups: Sequence[Group], k: int, *, seed: int = 0) -> Kept:
    """Keep k responses of each group, or all where there are fewer; a smaller k keeps a subset of a larger one's.

    Raises:
        ConfigError: `k` is below 1.
    """
    if k < 1:
        raise ConfigError(f"k: is {k}; expected a whole number from 1")
    kept = _keep(groups, lambda group: _sample(group.rollouts, k, key=_rollout_key, seed=seed))
    return Kept(kept, +Counter({"responses left out by subsampling": _size(groups) - _size(kept)}))


def trainable(groups: Sequence[Group], *, needs_pairs: bool) -> Kept:
    """Drop what cannot be used: ungraded and empty responses, and groups without both classes where pairs are needed.

    Raises:
        DataError: no right or no wrong response is left in the whole data, or no group has both where pairs are needed.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    kept = _keep(groups, lambda group: (r for r in _graded(group.rollouts) if r.response.strip()))
    dropped = Counter({"ungraded responses": len(rollouts) - len(_graded(rollouts))})
    dropped["empty responses"] = len(_graded(rollouts)) - _size(kept)
    dropped["groups without a usable response"] = len(groups) - len(kept)
    _require_both(kept, given=groups)
    if needs_pairs:
        dropped.update(reason for group in kept for reason in _lacks(group))
        kept = [group for group in kept if not _lacks(group)]
    if not kept:
        raise DataError(
            f"no pairs: none of {len(groups)} groups has both a right and a wrong response. "
            "Sample more responses a problem, or train with an objective that needs no pairs, such as ce."
        )
    return Kept(kept, +dropped)


def _cartesian(group: Group, seed: int) -> list[Pair]:
    """Every right response with every wrong one, ordered by chosen, then rejected."""
    right, wrong = _classes(group.rollouts)
    return [Pair(chosen, rejected) for chosen in right for rejected in wrong]


def _one_to_one(group: Group, seed: int) -> list[Pair]:
    """Each right response with a distinct wrong one, at random: as many pairs as the rarer class has responses."""
    right, wrong = (sorted(side, key=lambda r: _draw(seed, _rollout_key(r))) for side in _classes(group.rollouts))
    return [Pair(chosen, rejected) for chosen, rejected in zip(right, wrong, strict=False)]


PAIRINGS: Mapping[str, Callable[[Group, int], list[Pair]]] = {"cartesian": _cartesian, "one_to_one": _one_to_one}


def _balance_none(groups: Sequence[Group], seed: int) -> Kept:
    return Kept(list(groups), Counter())


def _balance_dataset(groups: Sequence[Group], seed: int) -> Kept:
    drawn = {_rollout_key(rollout) for rollout in _halves([r for group in groups for r in group.rollouts], seed)}
    kept = _keep(groups, lambda group: (r for r in group.rollouts if _rollout_key(r) in drawn))
    return Kept(kept, +(_balancing(groups, kept) + Counter({"groups left empty": len(groups) - len(kept)})))


def _balance_instruction(groups: Sequence[Group], seed: int) -> Kept:
    kept = _keep(groups, lambda group: _halves(group.rollouts, seed))
    return Kept(kept, +(_balancing(groups, kept) + Counter(reason for group in groups for reason in _lacks(group))))


BALANCES: Mapping[str, Callable[[Sequence[Group], int], Kept]] = {
    "none": _balance_none,
    "dataset": _balance_dataset,
    "instruction": _balance_instruction,
}


def _halves(rollouts: Sequence[Rollout], seed: int) -> list[Rollout]:
    """As many right as wrong rollouts, drawn at random from the majority class."""
    classes = _classes(rollouts)
    return [r for side in classes for r in _sample(side, min(map(len, classes)), key=_rollout_key, seed=seed)]


def _balancing(groups: Sequence[Group], kept: Sequence[Group]) -> Counter[str]:
    ungraded = _size(groups) - sum(len(_graded(group.rollouts)) for group in groups)
    majority = _size(groups) - ungraded - _size(kept)
    return Counter({"ungraded responses": ungraded, "responses of a majority class": majority})


def _keep(groups: Sequence[Group], choose: Callable[[Group], Iterable[Rollout]]) -> list[Group]:
    """The groups with only their chosen rollouts, in the order given, without groups left empty."""
    left = []
    for group in groups:
        chosen = {rollout.sample_idx for rollout in choose(group)}
        left.append(replace(group, rollouts=tuple(r for r in group.rollouts if r.sample_idx in chosen)))
    return [group for group in left if group.rollouts]


def _size(groups: Sequence[Group]) -> int:
    return sum(len(group.rollouts) for group in groups)


def _graded(rollouts: Iterable[Rollout]) -> list[Rollout]:
    return [rollout for rollout in rollouts if rollout.correct is not None]


def _classes(rollouts: Iterable[Rollout]) -> tuple[list[Rollout], list[Rollout]]:
    """Right rollouts, wrong rollouts."""
    graded = _graded(rollouts)
    return [r for r in graded if r.correct], [r for r in graded if not r.correct]


def _lacks(group: Group) -> list[str]:
    """What keeps the group from giving a pair; empty where it gives one."""
    right, wrong = _classes(group.rollouts)
    if not right and not wrong:
        return ["groups without a graded response"]
    return [f"groups without a {name} response" for name, side in (("right", right), ("wrong", wrong)) if not side]


def _require_both(groups: Sequence[Group], *, given: Sequence[Group]) -> None:
    right, wrong = _classes(rollout for group in groups for rollout in group.rollouts)
    if not right or not wrong:
        unusable = _size(given) - len(right) - len(wrong)
        raise DataError(
            f"{len(right)} right and {len(wrong)} wrong among {_size(given)} responses in {len(given)} groups "
            f"({unusable} ungraded or empty); expected at least one right and one wrong. Grade the responses, or "
            "sample more of them, on problems that the generator sometimes solves and sometimes does not."
        )


def _sample(items: Sequence[T], count: int, *, key: Callable[[T], tuple[object, ...]], seed: int) -> list[T]:
    """The `count` items with the lowest draws, in the order given."""
    lowest = sorted(range(len(items)), key=lambda index: _draw(seed, key(items[index])))[:count]
    return [items[index] for index in sorted(lowest)]


def _rollout_key(rollout: Rollout) -> tuple[object, ...]:
    return (rollout.problem_id, rollout.sample_idx)


def _pair_key(one: Pair) -> tuple[object, ...]:
    return (*_rollout_key(one.chosen), one.rejected.sample_idx)


def _draw(seed: int, key: tuple[object, ...]) -> bytes:
    """Bytes to sort by that look random, but depend on the seed and the key alone."""
    return hashlib.blake2b(json.dumps([seed, *key]).encode(), digest_size=16).digest()


def _choose(table: Mapping[str, T], name: str, *, setting: str) -> T:
    if name not in table:
        close = get_close_matches(name, table, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{setting}: no {name!r}; expected one of {', '.join(table)}.{hint}")
    return table[name]
