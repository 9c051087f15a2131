"""Mixtures of sources: problems by share, and responses replaced by another source's to the same problem."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from freeprm.core.groups import KeptGroups, group_key, n_responses, order, rollout_key, sample
from freeprm.errors import ConfigError, DataError
from freeprm.types import Group, Prompt, Rollout

SOURCE = "source"


def mix(
    groups: Sequence[Group], others: Mapping[str, Sequence[Group]], shares: Mapping[str, float], *, seed: int = 0
) -> KeptGroups:
    """The largest mixture in which each other source has its share of the problems, and `groups` have the rest.

    Problems are drawn at random from each source. A problem that an earlier source has too (the same prompt) is left
    out; one with an id that is taken is renamed `source/id`.

    Args:
        groups: of the main source.
        others: the other sources.
        shares: of each, above 0; together below 1.
        seed: of the draw.

    Raises:
        ConfigError: shares out of range.
        DataError: a source is too small for its share: not one of its problems would be in.

    Source: Yuan et al. 2024, arXiv:2412.01981, appendix C.2, which adds instructions of other tasks.
    """
    check_shares(shares, setting="mix")
    if sum(shares.values()) > 1 - 1e-9:
        raise ConfigError(f"mix: the shares add up to {sum(shares.values()):g}; the inputs have what is left to 1")
    sources, dropped = _apart(groups, others)
    weights = [1 - sum(shares.values()), *(shares[name] for name in others)]
    counts = _largest([len(source) for source in sources], weights)
    drawn: list[Group] = []
    for source, count in zip(sources, counts, strict=True):
        drawn += sample(source, count, key=group_key, seed=seed, purpose="mix")
    if not all(counts):
        raise DataError(
            f"mix: {[len(source) for source in sources]} problems cannot be mixed as {[round(w, 6) for w in weights]}: "
            "one source would have none. Choose other shares"
        )
    dropped["groups beyond their source's share"] = sum(map(len, sources)) - len(drawn)
    dropped["responses of groups beyond their source's share"] = sum(map(n_responses, sources)) - n_responses(drawn)
    noted = Counter({f"groups from {name}": count for name, count in zip(others, counts[1:], strict=True)})
    return KeptGroups(drawn, +dropped, noted)


def check_shares(shares: Mapping[str, float], *, setting: str) -> None:
    """Raise a ConfigError if a share is not above 0 and at most 1, or they add up to more than 1."""
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ConfigError(f"{setting}: {name} has a share of {share}; expected one above 0, at most 1")
    if sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"{setting}: the shares add up to {sum(shares.values()):g}; expected 1 at most")


def marked(rollout: Rollout, source: str) -> Rollout:
    """The rollout with the name of its source; its own column of that name is kept as `source_source`."""
    own = {f"source_{SOURCE}": rollout.extra[SOURCE]} if SOURCE in rollout.extra else {}
    return replace(rollout, extra={**rollout.extra, **own, SOURCE: source})


def question(prompt: Prompt) -> str:
    """Identifies a prompt; a text and a conversation of one user message with that text are equal."""
    if isinstance(prompt, str):
        return prompt.strip()
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"].strip()
    return json.dumps(prompt, sort_keys=True)


def _apart(groups: Sequence[Group], others: Mapping[str, Sequence[Group]]) -> tuple[list[list[Group]], Counter[str]]:
    """All sources, without problems in two of them or ids of two problems."""
    sources = [list(groups)]
    dropped: Counter[str] = Counter()
    ids = {group.problem_id for group in groups}
    questions = {question(group.prompt) for group in groups}
    for name, other in others.items():
        new = [group for group in other if question(group.prompt) not in questions]
        dropped["groups of a problem that an earlier source has"] += len(other) - len(new)
        dropped["responses to a problem that an earlier source has"] += n_responses(other) - n_responses(new)
        sources.append(
            [_renamed(group, f"{name}/{group.problem_id}") if group.problem_id in ids else group for group in new]
        )
        ids |= {group.problem_id for group in sources[-1]}
        questions |= {question(group.prompt) for group in new}
    return sources, dropped


def _renamed(group: Group, problem_id: str) -> Group:
    rollouts = tuple(replace(rollout, problem_id=problem_id) for rollout in group.rollouts)
    return replace(group, problem_id=problem_id, rollouts=rollouts)


def _largest(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Problems of each source in the largest mixture with these shares, up to one problem."""
    total = min(int(n / weight + 1e-9) for n, weight in zip(sizes, weights, strict=True))
    bounds = [round(total * share) for share in accumulate(weights, initial=0.0)]
    return [stop - start for start, stop in pairwise(bounds)]


SAMPLE = "source_sample_idx"
"""A replacing response's `sample_idx` in its own source."""


def replace_responses(
    groups: Sequence[Group], others: Mapping[str, Sequence[Group]], shares: Mapping[str, float], *, seed: int = 0
) -> KeptGroups:
    """Replace round(share * N) of each problem's N responses by as many of another source to the same problem.

    Both are drawn at random; a larger share replaces what a smaller one does, and more. A response takes the
    `sample_idx` of the one that it replaces, and the problem's id, prompt and gold answer. Two groups are of one
    problem if they have the same prompt, or the same id and gold answer. Where the other source lacks the problem, or
    has too few responses to it, responses stay.

    Args:
        shares: for each of them, above 0; together at most 1.

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
    return KeptGroups(replaced, +dropped, +noted)


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
