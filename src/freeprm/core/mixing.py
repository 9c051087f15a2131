"""Problems of several sources in one data set, by share."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from freeprm.core.draws import group_key, sample
from freeprm.core.graded import Kept, n_responses
from freeprm.errors import ConfigError, DataError
from freeprm.types import Group, Prompt, Rollout

SOURCE = "source"


def mix(
    groups: Sequence[Group], others: Mapping[str, Sequence[Group]], shares: Mapping[str, float], *, seed: int = 0
) -> Kept:
    """The largest mixture in which each other source has its share of the problems, and `groups` have the rest.

    Problems are drawn at random from each source. One that an earlier source has too (the same prompt) is left out of
    the later; another problem under an id that is taken goes by `source/id`.

    Args:
        groups: of the main source.
        others: groups by name of the source.
        shares: for each of them, above 0; together below 1.
        seed: of the draws.

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
    return Kept(drawn, +dropped, noted)


def check_shares(shares: Mapping[str, float], *, setting: str) -> None:
    """Refuse shares that are not shares.

    Raises:
        ConfigError: one is not above 0 and at most 1, or they add up to more than 1.
    """
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ConfigError(f"{setting}: {name} has a share of {share}; expected one above 0, at most 1")
    if sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"{setting}: the shares add up to {sum(shares.values()):g}; expected 1 at most")


def marked(rollout: Rollout, source: str) -> Rollout:
    """The rollout with the name of its source; a column of that name that it brings is kept as `source_source`."""
    brought = {f"source_{SOURCE}": rollout.extra[SOURCE]} if SOURCE in rollout.extra else {}
    return replace(rollout, extra={**rollout.extra, **brought, SOURCE: source})


def question(prompt: Prompt) -> str:
    """What is asked, equal for equal prompts; text and a conversation of one user turn with that text are equal."""
    if isinstance(prompt, str):
        return prompt.strip()
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"].strip()
    return json.dumps(prompt, sort_keys=True)


def _apart(groups: Sequence[Group], others: Mapping[str, Sequence[Group]]) -> tuple[list[list[Group]], Counter[str]]:
    """All sources, no problem in two of them, and no two problems under one id."""
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
    """Problems of each source in the largest mixture with these shares, exact to a problem."""
    total = min(int(n / weight + 1e-9) for n, weight in zip(sizes, weights, strict=True))
    bounds = [round(total * share) for share in accumulate(weights, initial=0.0)]
    return [stop - start for start, stop in pairwise(bounds)]
