"""As many right responses as wrong ones, over the data or inside each instruction."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from freeprm.core.draws import rollout_key, sample
from freeprm.core.graded import Kept, classes, graded, keep, lacks, n_responses, require_both
from freeprm.core.preferences import choose
from freeprm.types import Group, Rollout


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
    method = choose(BALANCES, how, setting="balance")
    require_both(groups, given=groups)
    return method(groups, seed)


def _none(groups: Sequence[Group], seed: int) -> Kept:
    return Kept(list(groups), Counter(), Counter())


def _dataset(groups: Sequence[Group], seed: int) -> Kept:
    drawn = {rollout_key(rollout) for rollout in _halves([r for group in groups for r in group.rollouts], seed)}
    kept = keep(groups, lambda group: (r for r in group.rollouts if rollout_key(r) in drawn))
    empty = Counter({"groups left empty": len(groups) - len(kept)})
    return Kept(kept, +(_responses(groups, kept) + empty), Counter())


def _instruction(groups: Sequence[Group], seed: int) -> Kept:
    kept = keep(groups, lambda group: _halves(group.rollouts, seed))
    single = Counter(reason for group in groups if (reason := lacks(group)))
    return Kept(kept, +(_responses(groups, kept) + single), Counter())


BALANCES: Mapping[str, Callable[[Sequence[Group], int], Kept]] = {
    "none": _none,
    "dataset": _dataset,
    "instruction": _instruction,
}


def _halves(rollouts: Sequence[Rollout], seed: int) -> list[Rollout]:
    """As many right as wrong rollouts, drawn at random from the majority class."""
    sides = classes(rollouts)
    count = min(map(len, sides))
    return [r for side in sides for r in sample(side, count, key=rollout_key, seed=seed, purpose="balance")]


def _responses(groups: Sequence[Group], kept: Sequence[Group]) -> Counter[str]:
    """Responses left out, by reason."""
    ungraded = n_responses(groups) - sum(len(graded(group.rollouts)) for group in groups)
    majority = n_responses(groups) - ungraded - n_responses(kept)
    return Counter({"ungraded responses": ungraded, "responses of a majority class": majority})
