"""Responses of one source replaced by those of another to the same problem: the paper's base-model responses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from freeprm.core.draws import order, rollout_key
from freeprm.core.graded import Kept
from freeprm.core.mixing import check_shares, question
from freeprm.errors import DataError
from freeprm.types import Group, Rollout

SAMPLE = "source_sample_idx"
"""The number that a replacing response has in its own source."""


def replace_responses(
    groups: Sequence[Group], others: Mapping[str, Sequence[Group]], shares: Mapping[str, float], *, seed: int = 0
) -> Kept:
    """Replace round(share * N) of each problem's N responses by as many of another source to the same problem.

    Both are drawn at random; a larger share replaces what a smaller one does, and more. A response takes the
    `sample_idx` of the one that it replaces, and the problem's id, prompt and gold answer. Two groups are of one
    problem if they have the same prompt, or the same id and gold answer. Where the other source lacks the problem, or
    has too few responses to it, responses stay.

    Args:
        groups: whose responses are replaced.
        others: groups by name of the source.
        shares: for each of them, above 0; together at most 1.
        seed: of the draws.

    Raises:
        ConfigError: shares out of range.
        DataError: nothing of a source came in.

    Source: Yuan et al. 2024, arXiv:2412.01981, appendix C.2: four of eight rollouts by those of the base model.
    """
    check_shares(shares, setting="replace")
    sources = {name: _Source(others[name]) for name in shares}
    dropped: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    replaced = []
    for group in groups:
        places = order(group.rollouts, key=rollout_key, seed=seed, purpose="replaced")
        bounds = [round(len(places) * share) for share in accumulate(shares.values(), initial=0.0)]
        coming: dict[int, Rollout] = {}
        for (name, source), (start, stop) in zip(sources.items(), pairwise(bounds), strict=True):
            drawn = source.draw(group, stop - start, seed=seed)
            here = zip(places[start:stop], drawn, strict=False)
            coming |= {place.sample_idx: _in_place(rollout, place) for place, rollout in here}
            noted[f"responses from {name}"] += len(drawn)
            noted[f"responses that {name} lacks"] += stop - start - len(drawn)
            noted[f"groups that {name} lacks"] += stop > start and not drawn
        dropped["responses replaced by another source's"] += len(coming)
        rollouts = tuple(coming.get(rollout.sample_idx, rollout) for rollout in group.rollouts)
        replaced.append(replace(group, rollouts=rollouts))
    if missing := [name for name in shares if not noted[f"responses from {name}"]]:
        raise DataError(
            f"replace: {missing[0]} has no response to any of {len(groups)} problems; expected the same prompts, or "
            "the same problem_id with the same answer, and a share that rounds to one response at least"
        )
    return Kept(replaced, +dropped, +noted)


class _Source:
    """The groups that responses come from, found by what they are of."""

    def __init__(self, groups: Sequence[Group]):
        self._by_prompt = {question(group.prompt): group for group in groups}
        self._by_id = {group.problem_id: group for group in groups}

    def draw(self, group: Group, count: int, *, seed: int) -> list[Rollout]:
        """`count` responses to the group's problem, or all there are."""
        found = self._by_prompt.get(question(group.prompt)) or self._by_id.get(group.problem_id)
        if found is None or not _same_problem(found, group):
            return []
        return order(found.rollouts, key=rollout_key, seed=seed, purpose="replacing")[:count]


def _same_problem(one: Group, other: Group) -> bool:
    """The same prompt; or, where it is worded in another way, at least the same gold answer under the same id."""
    answer = _answer(one)
    return question(one.prompt) == question(other.prompt) or (answer is not None and answer == _answer(other))


def _answer(group: Group) -> str | None:
    return next((rollout.answer for rollout in group.rollouts if rollout.answer is not None), None)


def _in_place(rollout: Rollout, place: Rollout) -> Rollout:
    """The rollout as a sample of the problem that it comes to."""
    return replace(
        rollout, problem_id=place.problem_id, sample_idx=place.sample_idx, prompt=place.prompt, answer=place.answer,
        extra={**rollout.extra, SAMPLE: rollout.sample_idx},
    )  # fmt: skip
