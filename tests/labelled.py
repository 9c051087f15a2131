"""Groups of labelled responses, what is in them, and the law that holds of everything left out of them."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from freeprm.core.groups import Size
from freeprm.types import Group, Rollout

MEANING = {"+": True, "-": False, "?": None}


def group(problem_id: str, labels: str, *, prompt: str = "q", texts: Sequence[str] = (), **changes: Any) -> Group:
    """A group with one response a character: + right, - wrong, ? ungraded."""
    rollouts = tuple(
        Rollout(
            problem_id=problem_id, sample_idx=i, prompt=prompt, response=texts[i] if texts else f"r{i}",
            correct=MEANING[sign], **changes,
        )
        for i, sign in enumerate(labels)
    )  # fmt: skip
    return Group(problem_id=problem_id, prompt=prompt, rollouts=rollouts)


def many_groups(seed: int = 0, count: int = 40) -> list[Group]:
    """Groups of 1 to 9 responses, a third of them right, each with a prompt of its own."""
    rng = random.Random(seed)
    drawn = ["".join(rng.choices("+-?", weights=[3, 6, 1], k=rng.randint(1, 9))) for _ in range(count)]
    return [group(f"p{i}", labels, prompt=f"q{i}") for i, labels in enumerate(drawn)]


def members(groups: Sequence[Group]) -> set[tuple[str, int]]:
    """Who is in, whatever the order."""
    return {(one.problem_id, one.sample_idx) for each in groups for one in each.rollouts}


def shuffled(groups: Sequence[Group], seed: int = 1) -> list[Group]:
    """The same groups, and the same responses in them, in another order."""
    rng = random.Random(seed)
    mixed = [replace(each, rollouts=tuple(rng.sample(each.rollouts, len(each.rollouts)))) for each in groups]
    return rng.sample(mixed, len(mixed))


def labels_of(groups: Sequence[Group]) -> Counter[bool | None]:
    return Counter(rollout.correct for each in groups for rollout in each.rollouts)


def assert_adds_up(before: Size, after: Size, left_out: Mapping[str, int], *, pairs: bool = False) -> None:
    """What was there is what is left plus what was left out; of pairs only where they are what is chosen from."""
    units: Counter[str] = Counter()
    for reason, count in left_out.items():
        units[next((unit for unit in ("groups", "pairs") if reason.startswith(unit)), "responses")] += count
    assert before.problems == after.problems + units["groups"]
    assert before.responses == after.responses + units["responses"]
    assert units["pairs"] == (before.pairs - after.pairs if pairs else 0)
    assert min(left_out.values(), default=1) > 0
