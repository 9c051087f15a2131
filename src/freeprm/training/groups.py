"""From files of graded rollouts to the groups that are trained on, with everything left out counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from freeprm.core.preferences import balance, pair, trainable
from freeprm.errors import ConfigError
from freeprm.io.formats import OnBad, read_rollouts
from freeprm.objectives.base import Objective
from freeprm.training.settings import TrainSettings
from freeprm.types import Group, group_rollouts


def read_groups(
    inputs: Sequence[Path],
    settings: TrainSettings,
    objective: Objective,
    *,
    columns: Mapping[str, str] | None,
    on_bad: OnBad,
) -> tuple[list[Group], Counter[str]]:
    """The groups to train on, and the count of everything left out.

    Args:
        inputs: graded rollouts, files or run folders.
        settings: balance, pairing and group size.
        objective: decides whether groups without both classes are of use.
        columns: our column name -> theirs.
        on_bad: stop at a broken record, or count it.

    Raises:
        ConfigError: groups of one response, where pairs are needed.
        RecordError: a broken record.
        DataError: no right or no wrong response, or no pair where pairs are needed.
    """
    if objective.needs_pairs and settings.group_size < 2:
        raise ConfigError(f"group_size: is {settings.group_size}; {settings.objective} needs pairs, so 2 or more")
    rows = read_rollouts(inputs, columns=columns, on_bad=on_bad, expect=("correct",))
    counts: Counter[str] = Counter({f"skipped: {reason}": n for reason, n in rows.skipped.items()})
    groups = group_rollouts(rows.rollouts)
    if again := len(rows.rollouts) - sum(len(group.rollouts) for group in groups):
        counts["skipped: again, with the scores of another scorer"] = again
    kept = trainable(groups, needs_pairs=objective.needs_pairs)
    balanced = balance(kept.groups, how=settings.balance, seed=settings.seed)
    counts.update({f"skipped: {reason}": n for reason, n in (kept.dropped + balanced.dropped).items()})
    groups = balanced.groups
    if objective.needs_pairs and (settings.pairing != "cartesian" or settings.max_pairs is not None):
        paired = pair(groups, pairing=settings.pairing, max_pairs=settings.max_pairs, seed=settings.seed)
        counts.update({f"skipped: {reason}": n for reason, n in paired.dropped.items()})
        groups = paired.groups
    divided, left_out = divide(groups, size=settings.group_size, needs_pairs=objective.needs_pairs)
    counts.update({f"skipped: {reason}": n for reason, n in left_out.items()})
    return divided, counts


def divide(groups: Iterable[Group], *, size: int, needs_pairs: bool) -> tuple[list[Group], Counter[str]]:
    """Groups of at most `size` responses, each with its share of both classes.

    Args:
        groups: graded.
        size: most responses in one group.
        needs_pairs: leave out parts with one class, which give no pairs.

    Returns:
        The groups, and the count of what dividing leaves out.
    """
    divided: list[Group] = []
    counts: Counter[str] = Counter()
    for group in groups:
        n_parts = -(-len(group.rollouts) // size)
        # Dealing the sorted responses out like cards gives each part its share of right and wrong ones.
        dealt = sorted(group.rollouts, key=lambda rollout: (not rollout.correct, rollout.sample_idx))
        parts = [replace(group, rollouts=tuple(dealt[part::n_parts])) for part in range(n_parts)]
        if needs_pairs:
            counts["pairs across the parts of divided groups"] += _n_pairs(group) - sum(map(_n_pairs, parts))
            single = [part for part in parts if not _n_pairs(part)]
            counts["responses in parts of one class of divided groups"] += sum(len(part.rollouts) for part in single)
            parts = [part for part in parts if _n_pairs(part)]
        divided += parts
    return divided, +counts


def _n_pairs(group: Group) -> int:
    n_right = sum(rollout.correct is True for rollout in group.rollouts)
    return n_right * (len(group.rollouts) - n_right)
