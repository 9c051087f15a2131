"""Responses that repeat another one to the same problem, told by the runs of eight words that they share.

The paper deduplicates its "preference dataset based on 8-gram overlap" and says no more (appendix C.2). Here the
overlap of two responses is |A & B| / |A | B| over their sets of 8-grams, words being what stands between spaces; a
response of fewer words is one gram. The overlap of a response and its beginning is the ratio of their lengths, so half
of a response does not repeat it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from freeprm.core.graded import Kept, keep
from freeprm.errors import ConfigError
from freeprm.types import Group, Rollout

GRAM = 8
Grams = frozenset[tuple[str, ...]]


def deduplicate(groups: Sequence[Group], threshold: float = 1.0) -> Kept:
    """Leave out each response whose 8-gram overlap with one kept before it, in its group, is `threshold` or more.

    Responses are gone through by `sample_idx`, so the first of several equal ones stays. One that was cut off and one
    that ended never repeat each other. Labels are not looked at: a right and a wrong response that differ in a few
    words can repeat each other, and `noted` tells how many did.

    Args:
        groups: graded or not.
        threshold: above 0, at most 1. At 1, only responses with the same 8-grams repeat each other.

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
    return Kept(kept, +Counter({"repeated responses": len(repeats)}), +noted)


def _repeats(group: Group, threshold: float) -> Iterator[tuple[Rollout, Rollout]]:
    """Each response that repeats an earlier one, with that one."""
    kept: list[tuple[Rollout, Grams]] = []
    for rollout in sorted(group.rollouts, key=lambda rollout: rollout.sample_idx):
        grams = _grams(rollout.response)
        first = next(
            (
                earlier
                for earlier, theirs in kept
                if earlier.truncated is rollout.truncated and _overlaps(grams, theirs, threshold)
            ),
            None,
        )
        if first is None:
            kept.append((rollout, grams))
        else:
            yield rollout, first


def _overlaps(a: Grams, b: Grams, threshold: float) -> bool:
    # The overlap is at most the ratio of the sizes, which rules most pairs out without a look at the grams.
    if min(len(a), len(b)) / max(len(a), len(b)) < threshold:
        return False
    both = len(a & b)
    return both / (len(a) + len(b) - both) >= threshold


def _grams(text: str) -> Grams:
    words = text.split()
    if len(words) < GRAM:
        return frozenset([tuple(words)])
    return frozenset(zip(*(islice(words, start, None) for start in range(GRAM)), strict=False))
