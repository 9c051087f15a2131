"""The operations that make training data of graded responses, in order, each with counts of what it left out.

mix, replace, deduplicate, instructions, responses, trainable, balance; and, for objectives on pairs, pair.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from freeprm.core.groups import (
    KeptGroups,
    Pair,
    Size,
    classes,
    graded,
    group_key,
    keep,
    lacks,
    n_responses,
    pair,
    require_both,
    rollout_key,
    sample,
    size,
    trainable,
)
from freeprm.core.mixing import marked, mix, replace_responses
from freeprm.errors import ConfigError
from freeprm.io.config import lookup
from freeprm.types import Group, Rollout

Sources = Mapping[str, Sequence[Group]]
OPERATIONS = "operations"
"""Their key in the counts of a manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The operations to apply; by default only unusable responses are left out."""

    mix: Mapping[str, float] = field(default_factory=dict)
    """Source -> its share of the problems; the inputs have the rest."""
    replace: Mapping[str, float] = field(default_factory=dict)
    """Source -> the share of each problem's responses that its responses replace."""
    deduplicate: float | None = None
    """8-gram overlap from which a response is a repeat, above 0 to 1; None keeps all."""
    instructions: float = 1.0
    """Share of problems to keep."""
    responses: int | None = None
    """Responses to keep for each problem; None for all."""
    balance: str = "none"
    """One of `core.curation.BALANCES`."""
    pairing: str = "cartesian"
    """One of `core.groups.PAIRINGS`."""
    max_pairs: int | None = None
    """Maximum for one problem."""
    seed: int = 0
    """Of all random choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation and its effect."""

    name: str
    """With its setting, e.g. `deduplicate 0.8`."""
    before: Size
    after: Size
    left_out: Mapping[str, int]
    """By reason; see `core.groups` for units."""
    noted: Mapping[str, int]
    """Further counts."""


class Curated(NamedTuple):
    """Curated groups and their history."""

    groups: list[Group]
    operations: list[Operation]


class CuratedPairs(NamedTuple):
    """Pairs and the operation that made them."""

    pairs: list[Pair]
    operation: Operation


def curate(
    groups: Sequence[Group], recipe: Recipe, *, sources: Sources | None = None, name: str = "inputs", needs_pairs: bool,
    needs_both: bool = True,
) -> Curated:  # fmt: skip
    """Apply all operations but pairing.

    Args:
        groups: of the main source.
        recipe: the operations.
        sources: the groups of each source in the recipe.
        name: of the main source, for the provenance of mixed rollouts.
        needs_pairs, needs_both: see `core.groups.trainable`.
    """
    r, others = recipe, dict(sources or {})
    if r.mix or r.replace:
        groups = _marked(groups, name)
        others = {source: _marked(other, source) for source, other in others.items()}
    made = _Curation(groups)
    if r.mix:
        mixed = {source: others[source] for source in r.mix}
        made.apply(f"mix {_shares(r.mix)}", mix(made.groups, mixed, r.mix, seed=r.seed), added=mixed)
    if r.replace:
        coming = replace_responses(made.groups, others, r.replace, seed=r.seed)
        made.apply(f"replace {_shares(r.replace)}", coming)
    if r.deduplicate is not None:
        made.apply(f"deduplicate {r.deduplicate:g}", deduplicate(made.groups, r.deduplicate))
    if r.instructions != 1:
        made.apply(f"instructions {r.instructions:g}", subsample_instructions(made.groups, r.instructions, seed=r.seed))
    if r.responses is not None:
        made.apply(f"responses {r.responses}", subsample_responses(made.groups, r.responses, seed=r.seed))
    made.apply("trainable", trainable(made.groups, needs_pairs=needs_pairs, needs_both=needs_both))
    if r.balance != "none":
        made.apply(f"balance {r.balance}", balance(made.groups, how=r.balance, seed=r.seed))
    return Curated(made.groups, made.operations)


def make_pairs(groups: Sequence[Group], recipe: Recipe) -> CuratedPairs:
    """The last operation: the pairs of curated groups.

    Raises:
        ConfigError: a setting out of range.
        DataError: no right or no wrong response.
    """
    paired = pair(groups, pairing=recipe.pairing, max_pairs=recipe.max_pairs, seed=recipe.seed)
    used = {rollout_key(rollout) for one in paired.pairs for rollout in one}
    problems = {problem_id for problem_id, _ in used}
    limit = "" if recipe.max_pairs is None else f", at most {recipe.max_pairs}"
    operation = Operation(
        name=f"pair {recipe.pairing}{limit}",
        before=size(groups),
        after=Size(problems=len(problems), responses=len(used), pairs=len(paired.pairs)),
        left_out=dict(paired.dropped),
        noted={},
    )
    return CuratedPairs(paired.pairs, operation)


def recorded(counts: Mapping[str, Any], operations: Sequence[Operation]) -> dict[str, Any]:
    """Counts for a manifest, with the operations."""
    return {**counts, OPERATIONS: [asdict(done) for done in operations]}


def recalled(counts: Mapping[str, Any]) -> tuple[dict[str, Any], list[Operation]]:
    """Counts and operations; the inverse of `recorded`."""
    operations = [
        Operation(**{**row, "before": Size(**row["before"]), "after": Size(**row["after"])})
        for row in counts.get(OPERATIONS, ())
    ]
    return {name: count for name, count in counts.items() if name != OPERATIONS}, operations


class _Curation:
    """Groups and the operations applied so far."""

    def __init__(self, groups: Sequence[Group]):
        self.groups = list(groups)
        self.operations: list[Operation] = []

    def apply(self, name: str, kept: KeptGroups, *, added: Sources | None = None) -> None:
        """Replace the groups by those that an operation kept; `added` are its further inputs."""
        before = sum((size(groups) for groups in (added or {}).values()), start=size(self.groups))
        left_out, noted = dict(kept.dropped), dict(kept.noted)
        done = Operation(name=name, before=before, after=size(kept.groups), left_out=left_out, noted=noted)
        self.operations.append(done)
        self.groups = kept.groups


def _marked(groups: Sequence[Group], source: str) -> list[Group]:
    return [replace(group, rollouts=tuple(marked(rollout, source) for rollout in group.rollouts)) for group in groups]


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in shares.items())


# The operations.


def balance(groups: Sequence[Group], *, how: str, seed: int = 0) -> KeptGroups:
    """Drop random responses of the majority class until right and wrong are 50/50.

    Args:
        groups: any number.
        how: one of `BALANCES`: `none`; `dataset`, over all groups; `instruction`, inside each group, which drops
            groups with one class.
        seed: of the choice.

    Raises:
        ConfigError: no such way of balancing.
        DataError: no right or no wrong response in the whole data.

    Source: Yuan et al. 2024, arXiv:2412.01981, section 4.1 (CE, dataset-wise and instruction-wise balanced).
    """
    method = lookup(BALANCES, how, setting="balance")
    require_both(groups, before=groups)
    return method(groups, seed)


def _dataset(groups: Sequence[Group], seed: int) -> KeptGroups:
    drawn = {rollout_key(rollout) for rollout in _halves([r for group in groups for r in group.rollouts], seed)}
    kept = keep(groups, lambda group: (r for r in group.rollouts if rollout_key(r) in drawn))
    return _balanced(groups, kept, Counter({"groups left empty": len(groups) - len(kept)}))


def _instruction(groups: Sequence[Group], seed: int) -> KeptGroups:
    kept = keep(groups, lambda group: _halves(group.rollouts, seed))
    return _balanced(groups, kept, Counter(reason for group in groups if (reason := lacks(group))))


BALANCES: Mapping[str, Callable[[Sequence[Group], int], KeptGroups]] = {
    "none": lambda groups, seed: KeptGroups(list(groups), Counter(), Counter()),
    "dataset": _dataset, "instruction": _instruction,
}  # fmt: skip


def _halves(rollouts: Sequence[Rollout], seed: int) -> list[Rollout]:
    """As many right as wrong rollouts, drawn at random from the majority class."""
    sides = classes(rollouts)
    count = min(map(len, sides))
    return [r for side in sides for r in sample(side, count, key=rollout_key, seed=seed, purpose="balance")]


def _balanced(groups: Sequence[Group], kept: list[Group], groups_left_out: Counter[str]) -> KeptGroups:
    """The kept groups with counts of responses left out."""
    n_graded = sum(len(graded(group.rollouts)) for group in groups)
    dropped = Counter({
        "ungraded responses": n_responses(groups) - n_graded,
        "responses of a majority class": n_graded - n_responses(kept),
    })  # fmt: skip
    return KeptGroups(kept, +(dropped + groups_left_out), Counter())


def subsample_instructions(groups: Sequence[Group], share: float, *, seed: int = 0) -> KeptGroups:
    """Keep round(share * P) of the P groups, at least one; smaller shares are subsets of larger ones.

    Raises:
        ConfigError: `share` is not above 0 and at most 1.

    Source: Yuan et al. 2024, arXiv:2412.01981, section 5.1: 25, 50 and 75 % of the instructions at random.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"instructions: is {share}; expected a share above 0, at most 1")
    count = max(1, round(share * len(groups)))
    kept = sample(groups, count, key=group_key, seed=seed, purpose="instructions")
    dropped = Counter({
        "groups left out by subsampling": len(groups) - len(kept),
        "responses of groups left out by subsampling": n_responses(groups) - n_responses(kept),
    })  # fmt: skip
    return KeptGroups(kept, +dropped, Counter())


def subsample_responses(groups: Sequence[Group], k: int, *, seed: int = 0) -> KeptGroups:
    """Keep k responses of each group, or all if there are fewer; a smaller k keeps a subset of a larger one's.

    Right and wrong ones have equal chances, so the n+ n- pairs of N responses become n+ n- k(k-1) / (N(N-1)) on
    average.

    Raises:
        ConfigError: `k` is below 1.

    Source: Yuan et al. 2024, arXiv:2412.01981, section 5.1: 1, 2, 4 and 8 responses an instruction.
    """
    if k < 1:
        raise ConfigError(f"responses: is {k}; expected a whole number from 1")
    kept = keep(groups, lambda group: sample(group.rollouts, k, key=rollout_key, seed=seed, purpose="responses"))
    dropped = Counter({"responses left out by subsampling": n_responses(groups) - n_responses(kept)})
    return KeptGroups(kept, +dropped, Counter())


GRAM = 8
Grams = frozenset[tuple[str, ...]]


def deduplicate(groups: Sequence[Group], threshold: float = 1.0) -> KeptGroups:
    """Leave out each response whose 8-gram overlap with an earlier kept one of its group is `threshold` or more.

    The paper deduplicates "based on 8-gram overlap" and says no more (appendix C.2). Here the overlap of two responses
    is |A & B| / |A | B| over their sets of 8-grams of words; a shorter response is one gram. The overlap of a response
    and its beginning is the ratio of their lengths.

    Responses are compared in order of `sample_idx`, so the first of several equal ones stays. A truncated response and
    a finished one are never repeats. Labels are ignored: a right and a wrong response that differ in a few words can be
    repeats, which `noted` counts.

    Args:
        groups: any number.
        threshold: above 0, at most 1. At 1, only responses with the same 8-grams are repeats.

    Raises:
        ConfigError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"deduplicate: is {threshold}; expected an overlap above 0, at most 1")
    repeats = [repeat for group in groups for repeat in _repeats(group, threshold)]
    out = {id(rollout) for rollout, _ in repeats}
    kept = keep(groups, lambda group: (rollout for rollout in group.rollouts if id(rollout) not in out))
    disagreeing = sum(rollout.correct is not first.correct for rollout, first in repeats)
    noted = Counter({"repeated responses with another label": disagreeing})
    return KeptGroups(kept, +Counter({"repeated responses": len(repeats)}), +noted)


def _repeats(group: Group, threshold: float) -> Iterator[tuple[Rollout, Rollout]]:
    """Each repeat with the earlier response."""
    kept: list[tuple[Rollout, Grams]] = []
    for rollout in sorted(group.rollouts, key=lambda rollout: rollout.sample_idx):
        grams = _grams(rollout.response)
        alike = ((earlier, theirs) for earlier, theirs in kept if earlier.truncated is rollout.truncated)
        first = next((earlier for earlier, theirs in alike if _overlaps(grams, theirs, threshold)), None)
        if first is None:
            kept.append((rollout, grams))
        else:
            yield rollout, first


def _overlaps(a: Grams, b: Grams, threshold: float) -> bool:
    # The overlap is at most the ratio of the sizes, which excludes most pairs cheaply.
    if min(len(a), len(b)) / max(len(a), len(b)) < threshold:
        return False
    both = len(a & b)
    return both / (len(a) + len(b) - both) >= threshold


def _grams(text: str) -> Grams:
    words = text.split()
    if len(words) < GRAM:
        return frozenset([tuple(words)])
    return frozenset(zip(*(islice(words, start, None) for start in range(GRAM)), strict=False))
