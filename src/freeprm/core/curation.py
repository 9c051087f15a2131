"""The operations that make training data of graded responses, in their order, each with what it left out.

mix, replace, deduplicate, instructions, responses, trainable, balance; and, for objectives on pairs, pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from freeprm.core.balance import balance
from freeprm.core.deduplication import deduplicate
from freeprm.core.draws import rollout_key
from freeprm.core.graded import Kept, Size, size, trainable
from freeprm.core.mixing import marked, mix
from freeprm.core.preferences import Pair, pair
from freeprm.core.replacing import replace_responses
from freeprm.core.subsampling import subsample_instructions, subsample_responses
from freeprm.types import Group

Sources = Mapping[str, Sequence[Group]]
OPERATIONS = "operations"
"""Their name among the counts of a manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is done to the data; by default nothing but leaving out what cannot be used."""

    mix: Mapping[str, float] = field(default_factory=dict)
    """Source -> its share of the problems; the inputs have the rest."""
    replace: Mapping[str, float] = field(default_factory=dict)
    """Source -> the share of each problem's responses that its responses replace."""
    deduplicate: float | None = None
    """8-gram overlap from which a response repeats another, above 0 to 1; None keeps all."""
    instructions: float = 1.0
    """Share of the problems kept."""
    responses: int | None = None
    """Responses kept of each problem; None for all."""
    balance: str = "none"
    """One of `core.balance.BALANCES`."""
    pairing: str = "cartesian"
    """One of `core.preferences.PAIRINGS`."""
    max_pairs: int | None = None
    """At most so many pairs of one problem."""
    seed: int = 0
    """Of every draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation as it was done."""

    name: str
    """With its setting, e.g. `deduplicate 0.8`."""
    before: Size
    after: Size
    left_out: Mapping[str, int]
    """By reason; see `core.graded` for what is counted."""
    noted: Mapping[str, int]
    """What else is worth knowing."""


class Curated(NamedTuple):
    """What is left, and how it came about."""

    groups: list[Group]
    operations: list[Operation]


class CuratedPairs(NamedTuple):
    """The pairs, and how they came about."""

    pairs: list[Pair]
    operation: Operation


def curate(
    groups: Sequence[Group], recipe: Recipe, *, sources: Sources | None = None, name: str = "inputs", needs_pairs: bool,
    needs_both: bool = True,
) -> Curated:  # fmt: skip
    """The groups to train on: all operations but pairing.

    Args:
        groups: of the main source.
        recipe: what is done.
        sources: the groups of each source that the recipe names.
        name: of the main source, for the provenance of rollouts where sources are mixed.
        needs_pairs: leave out groups without both classes.
        needs_both: see `trainable`.

    Raises:
        ConfigError: a setting out of range.
        DataError: see each operation.
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
    """Counts as a manifest keeps them, the operations among them."""
    return {**counts, OPERATIONS: [asdict(done) for done in operations]}


def recalled(counts: Mapping[str, Any]) -> tuple[dict[str, Any], list[Operation]]:
    """Counts and operations as `recorded` put them together."""
    operations = [
        Operation(**{**row, "before": Size(**row["before"]), "after": Size(**row["after"])})
        for row in counts.get(OPERATIONS, ())
    ]
    return {name: count for name, count in counts.items() if name != OPERATIONS}, operations


class _Curation:
    """Groups on their way through the operations."""

    def __init__(self, groups: Sequence[Group]):
        self.groups = list(groups)
        self.operations: list[Operation] = []

    def apply(self, name: str, kept: Kept, *, added: Sources | None = None) -> None:
        """Go on with what an operation kept; `added` came in besides what was there."""
        before = sum((size(groups) for groups in (added or {}).values()), start=size(self.groups))
        left_out, noted = dict(kept.dropped), dict(kept.noted)
        done = Operation(name=name, before=before, after=size(kept.groups), left_out=left_out, noted=noted)
        self.operations.append(done)
        self.groups = kept.groups


def _marked(groups: Sequence[Group], source: str) -> list[Group]:
    return [replace(group, rollouts=tuple(marked(rollout, source) for rollout in group.rollouts)) for group in groups]


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in shares.items())
