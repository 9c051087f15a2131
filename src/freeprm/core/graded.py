"""Groups of graded responses: what is in them, what is kept of them, and what of them can be trained on.

Whatever is left out is counted by reason. Reasons that begin with `groups` count problems, those that begin with
`pairs` count pairs, all others count responses; in each unit, what was there is what is left plus what was left out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from freeprm.errors import DataError
from freeprm.types import Group, Rollout


class Kept(NamedTuple):
    """The groups that are left, in the order given, none of them empty."""

    groups: list[Group]
    dropped: Counter[str]
    """How many were left out, by reason."""
    noted: Counter[str]
    """What else is worth knowing of those left out, or of those that came in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much data there is."""

    problems: int
    responses: int
    pairs: int
    """Of a right response with a wrong one to the same problem."""

    def __add__(self, other: "Size") -> "Size":
        return Size(
            problems=self.problems + other.problems,
            responses=self.responses + other.responses,
            pairs=self.pairs + other.pairs,
        )


def size(groups: Sequence[Group]) -> Size:
    """Problems, responses and pairs of groups."""
    return Size(problems=len(groups), responses=n_responses(groups), pairs=sum(map(n_pairs, groups)))


def trainable(groups: Sequence[Group], *, needs_pairs: bool, needs_both: bool = True) -> Kept:
    """Drop what cannot be used: ungraded and empty responses, and groups without both classes where pairs are needed.

    Args:
        groups: graded.
        needs_pairs: leave out groups without both classes.
        needs_both: the whole data must have both, as where outcomes are what is learnt.

    Raises:
        DataError: no response is left in the whole data, none of a class that is needed, or no group has both classes
            where pairs are needed.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    kept = keep(groups, lambda group: (r for r in graded(group.rollouts) if r.response.strip()))
    dropped = Counter({"ungraded responses": len(rollouts) - len(graded(rollouts))})
    dropped["empty responses"] = len(graded(rollouts)) - n_responses(kept)
    dropped["groups without a usable response"] = len(groups) - len(kept)
    if needs_both or not kept:
        require_both(kept, given=groups)
    if needs_pairs:
        for group, reason in [(group, lacks(group)) for group in kept]:
            dropped.update({reason: 1, f"responses in {reason}": len(group.rollouts)} if reason else {})
        kept = [group for group in kept if not lacks(group)]
    if not kept:
        raise DataError(
            f"no pairs: none of {len(groups)} groups has both a right and a wrong response. "
            "Sample more responses a problem, or train with an objective that needs no pairs, such as ce."
        )
    return Kept(kept, +dropped, Counter())


def keep(groups: Sequence[Group], choose: Callable[[Group], Iterable[Rollout]]) -> list[Group]:
    """The groups with only their chosen rollouts, in the order given, without groups left empty."""
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
    """Those with a label."""
    return [rollout for rollout in rollouts if rollout.correct is not None]


def classes(rollouts: Iterable[Rollout]) -> tuple[list[Rollout], list[Rollout]]:
    """Right rollouts, wrong rollouts."""
    labelled = graded(rollouts)
    return [r for r in labelled if r.correct], [r for r in labelled if not r.correct]


def lacks(group: Group) -> str | None:
    """The reason why the group gives no pair; None where it gives one."""
    right, wrong = classes(group.rollouts)
    if right and wrong:
        return None
    missing = "graded" if not (right or wrong) else "wrong" if right else "right"
    return f"groups without a {missing} response"


def require_both(groups: Sequence[Group], *, given: Sequence[Group]) -> None:
    """Refuse groups that have only one class among them.

    Raises:
        DataError: no right or no wrong response; tells how many of what were `given`.
    """
    right, wrong = classes(rollout for group in groups for rollout in group.rollouts)
    if not right or not wrong:
        unusable = n_responses(given) - len(right) - len(wrong)
        raise DataError(
            f"{len(right)} right and {len(wrong)} wrong among {n_responses(given)} responses in {len(given)} groups "
            f"({unusable} ungraded or empty); expected at least one right and one wrong. Grade the responses, or "
            "sample more of them, on problems that the generator sometimes solves and sometimes does not."
        )
