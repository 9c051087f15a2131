"""From files of graded rollouts to the groups that are trained on, with everything left out counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from freeprm.core.curation import Operation, Recipe, curate, make_pairs
from freeprm.core.groups import Pair, n_pairs
from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import OnBad
from freeprm.objectives.base import Objective
from freeprm.training.batches import step_reader
from freeprm.training.settings import TrainSettings
from freeprm.training.steps import StepReader
from freeprm.types import Group, Rollout, group_rollouts


class TrainingGroups(NamedTuple):
    """The groups to train on, and how they came about."""

    groups: list[Group]
    counts: Counter[str]
    """Everything left out, by reason, and where the labels of steps come from."""
    operations: list[Operation]
    """What was done to the data, in order; the last step, dividing groups by `group_size`, is in `counts` only."""


def read_groups(
    inputs: Sequence[Path],
    settings: TrainSettings,
    objective: Objective,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    held_out: bool = False,
) -> TrainingGroups:
    """The groups to train or to evaluate on, and the count of everything left out.

    Args:
        inputs: graded rollouts, files or run folders.
        settings: what is done to the data, and group size.
        objective: decides whether groups without both classes are of use.
        columns: our column name -> theirs.
        on_bad: stop at a broken record, or count it.
        held_out: they are to evaluate on: nothing is mixed in, replaced, deduplicated or subsampled.

    Raises:
        ConfigError: groups of one response, where pairs are needed; a setting out of range.
        RecordError: a broken record.
        DataError: no right or no wrong response, no pair where pairs are needed, or no step label where they are.
    """
    if objective.needs_pairs and settings.group_size < 2:
        raise ConfigError(f"group_size: is {settings.group_size}; {settings.objective} needs pairs, so 2 or more")
    recipe = recipe_of(settings)
    if held_out:
        recipe = replace(recipe, mix={}, replace={}, deduplicate=None, instructions=1.0, responses=None)
    by_step = objective.needs_step_labels
    read = read_graded(inputs, recipe, columns=columns, on_bad=on_bad, expect=() if by_step else ("correct",))
    noted: Counter[str] = Counter()
    if (reader := step_reader(settings, objective)) is not None:
        read, noted = _with_steps(read, reader, on_bad=on_bad)
    groups, operations = curate(
        read.groups, recipe, sources=read.sources, name=read.name, needs_pairs=objective.needs_pairs,
        needs_both=not by_step,
    )  # fmt: skip
    if objective.needs_pairs and (recipe.pairing != "cartesian" or recipe.max_pairs is not None):
        made = make_pairs(groups, recipe)
        groups, operations = groups_of_pairs(made.pairs, size=settings.group_size), [*operations, made.operation]
    groups, divided = divide(groups, size=settings.group_size, needs_pairs=objective.needs_pairs)
    left_out = sum((Counter(done.left_out) for done in operations), start=read.skipped + divided)
    counts = noted + Counter({f"skipped: {reason}": count for reason, count in left_out.items()})
    return TrainingGroups(groups, counts, operations)


def recipe_of(settings: TrainSettings) -> Recipe:
    """What the settings say of the data."""
    return Recipe(**{item.name: getattr(settings, item.name) for item in fields(Recipe)})


class Graded(NamedTuple):
    """Groups by where they come from, and what was left out in reading."""

    groups: list[Group]
    """Of the inputs."""
    name: str
    """Of the inputs, for the provenance of rollouts."""
    sources: dict[str, list[Group]]
    """Of every other source that the recipe names."""
    skipped: Counter[str]
    """By reason; those of another source begin with its name."""


def source_paths(recipe: Recipe) -> list[Path]:
    """The files and folders that a recipe names, each once."""
    return [Path(name) for name in dict.fromkeys([*recipe.mix, *recipe.replace])]


def read_graded(
    inputs: Sequence[Path], recipe: Recipe, *, columns: Mapping[str, str] | None, on_bad: OnBad,
    expect: Sequence[str] = ("correct",),
) -> Graded:  # fmt: skip
    """The groups of the inputs and of each source that the recipe names, read one by one: their ids need not differ.

    Args:
        inputs, columns, on_bad: as for `read_groups`.
        recipe: names the other sources by their paths.
        expect: columns that some row of each source must have.

    Raises:
        RecordError: a broken record, or an expected column that no row of a source has.
    """

    def read(paths: Sequence[Path]) -> tuple[list[Group], Counter[str]]:
        rows = read_rollouts(paths, columns=columns, on_bad=on_bad, expect=expect)
        groups = group_rollouts(rows.rollouts)
        again = len(rows.rollouts) - sum(len(group.rollouts) for group in groups)
        return groups, +(rows.skipped + Counter({"again, with the scores of another scorer": again}))

    groups, skipped = read(inputs)
    sources: dict[str, list[Group]] = {}
    for path in source_paths(recipe):
        sources[str(path)], more = read([path])
        skipped.update({f"{path}: {reason}": count for reason, count in more.items()})
    return Graded(groups, ", ".join(map(str, inputs)), sources, skipped)


def groups_of_pairs(pairs: Iterable[Pair], *, size: int) -> list[Group]:
    """Groups in which every right response with every wrong one makes the given pairs, each once.

    Pairs that share a response share a group where they can, so that it goes through the model once for all of them:
    a problem whose pairs are complete is one group, others are a response with its counterparts, the most shared first.

    Args:
        pairs: distinct, those of a problem one after the other.
        size: most responses in one group, 2 or more.
    """
    groups: list[Group] = []
    for _, own in groupby(pairs, key=lambda one: one.chosen.problem_id):
        left = list(own)
        while left:
            together = left if _is_complete(left, size) else _star(left)[: size - 1]
            groups.append(_group(together))
            left = [one for one in left if not any(one is taken for taken in together)]
    return groups


def divide(groups: Iterable[Group], *, size: int, needs_pairs: bool) -> tuple[list[Group], Counter[str]]:
    """Groups of at most `size` responses, each with its share of both classes; and the count of what that leaves out.

    Where pairs are needed, parts with one class are left out.
    """
    divided: list[Group] = []
    counts: Counter[str] = Counter()
    for group in groups:
        n_parts = -(-len(group.rollouts) // size)
        # Dealing the sorted responses out like cards gives each part its share of right and wrong ones.
        dealt = sorted(group.rollouts, key=lambda rollout: (not rollout.correct, rollout.sample_idx))
        parts = [replace(group, rollouts=tuple(dealt[part::n_parts])) for part in range(n_parts)]
        if needs_pairs:
            counts["pairs across the parts of divided groups"] += n_pairs(group) - sum(map(n_pairs, parts))
            single = [part for part in parts if not n_pairs(part)]
            counts["responses in parts of one class of divided groups"] += sum(len(part.rollouts) for part in single)
            parts = [part for part in parts if n_pairs(part)]
        divided += parts
    return divided, +counts


def _with_steps(read: Graded, reader: StepReader, *, on_bad: OnBad) -> tuple[Graded, Counter[str]]:
    """Only the responses whose steps, and labels where those are needed, can be read; and whose labels they are.

    Where steps have labels, a response without an outcome has the one that they imply.
    """
    left_out: Counter[str] = Counter()
    noted: Counter[str] = Counter()

    def usable(rollout: Rollout) -> Rollout | None:
        if not rollout.response.strip() or (rollout.correct is None and reader.labels is None):
            return rollout  # left out, and counted, with all that cannot be trained on
        try:
            steps = reader.in_text(rollout)
        except RecordError as error:
            if on_bad == "raise":
                raise
            left_out[error.reason] += 1
            return None
        if steps is None:
            left_out["responses without step labels"] += 1
            return None
        if reader.labels is None:
            return rollout
        labeler = rollout.extra.get("step_labeler")
        whose = "that came with the rows" if labeler is None else f"by {labeler}"
        noted[f"responses with step labels {whose}"] += 1
        if rollout.correct is not None:
            return rollout
        noted["responses whose outcome is that of their last labelled step"] += 1
        return replace(rollout, correct=steps.outcome)

    def kept(groups: Sequence[Group]) -> list[Group]:
        left = [replace(one, rollouts=tuple(filter(None, map(usable, one.rollouts)))) for one in groups]
        return [one for one in left if one.rollouts]

    groups, sources = kept(read.groups), {name: kept(own) for name, own in read.sources.items()}
    if not groups:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(
            f"{read.name}: nothing to train on ({reasons}). Step labels are read from the column {reader.column!r}; "
            "give rows labels with `freeprm label`, or choose the other column with --step-labels"
        )
    return read._replace(groups=groups, sources=sources, skipped=read.skipped + left_out), noted


def _is_complete(pairs: Sequence[Pair], size: int) -> bool:
    """All pairs of the responses that are in them, which are `size` at most."""
    n_right, n_wrong = (len({rollout.sample_idx for rollout in side}) for side in zip(*pairs, strict=True))
    return len(pairs) == n_right * n_wrong and n_right + n_wrong <= size


def _star(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of the response that most of them share; of equals, the first by `sample_idx`."""
    shared = Counter(rollout.sample_idx for one in pairs for rollout in one)
    centre = min(shared, key=lambda index: (-shared[index], index))
    return [one for one in pairs if centre in (one.chosen.sample_idx, one.rejected.sample_idx)]


def _group(pairs: Sequence[Pair]) -> Group:
    """The responses of pairs, each once."""
    rollouts: dict[int, Rollout] = {rollout.sample_idx: rollout for one in pairs for rollout in one}
    first = pairs[0].chosen
    return Group(
        problem_id=first.problem_id, prompt=first.prompt, rollouts=tuple(rollouts[i] for i in sorted(rollouts))
    )
