"""Pair: graded rollouts in; preference pairs out, or curated rollouts for objectives without pairs.

out/pairs.jsonl       rows in TRL's preference format, `prompt`, `chosen` and `rejected`, with their origin
out/rollouts.jsonl    or else the curated rows, with `keep`
out/manifest.json     counts of every operation: before, after, and left out by reason
"""

import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from freeprm.core.curation import Operation, Recipe, curate, make_pairs, recorded
from freeprm.core.groups import Pair, rollout_key
from freeprm.core.mixing import SOURCE
from freeprm.formats.trl_preference import TRLPreference
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder
from freeprm.settings import PairSettings
from freeprm.stages.base import RunResult, stage
from freeprm.training.groups import Graded, read_graded, source_paths
from freeprm.types import Cost, Group


@stage(PairSettings)
def pair(inputs: Sequence[Path], settings: PairSettings, out: Path) -> RunResult:
    """Make training data of graded rollouts, as `train` does with the same settings.

    With `keep` of rollouts, groups with one class stay, unless a pairing is set.
    """
    recipe = Recipe(**{item.name: getattr(settings, item.name) for item in fields(Recipe)})
    with RunFolder(
        out, stage="pair", settings=settings.deciding(), inputs=[*inputs, *source_paths(recipe)]
    ) as run:  # fmt: skip
        if not run.complete:
            read = read_graded(inputs, recipe, columns=settings.columns, on_bad=settings.on_bad)
            rows, operations = _rows(read, recipe, settings.keep)
            run.rewrite(settings.keep, rows)
            skipped = {f"skipped: {reason}": count for reason, count in read.skipped.items()}
            run.finish(cost=Cost(), counts=recorded({settings.keep: len(rows), **skipped}, operations))
    return RunResult.load(out)


def _rows(read: Graded, recipe: Recipe, keep: str) -> tuple[list[Row], list[Operation]]:
    in_pairs = keep == "pairs" or recipe.pairing != "cartesian" or recipe.max_pairs is not None
    groups, operations = curate(read.groups, recipe, sources=read.sources, name=read.name, needs_pairs=in_pairs)
    if not in_pairs:
        return [rollout_row(rollout) for group in groups for rollout in group.rollouts], operations
    pairs, last = make_pairs(groups, recipe)
    if keep == "pairs":
        return _pair_rows(groups, pairs, recipe), [*operations, last]
    used = {rollout_key(rollout) for one in pairs for rollout in one}
    rollouts = (rollout for group in groups for rollout in group.rollouts if rollout_key(rollout) in used)
    return [rollout_row(rollout) for rollout in rollouts], [*operations, last]


def _pair_rows(groups: Sequence[Group], pairs: Sequence[Pair], recipe: Recipe) -> list[Row]:
    """TRL's rows of the pairs, in order, each with its origin."""
    preference = TRLPreference(pairing=recipe.pairing, max_pairs=recipe.max_pairs, seed=recipe.seed, cut_off=True)
    rows = preference.write(groups).rows
    if any(rollout.truncated for one in pairs for rollout in one):
        warnings.warn(
            "some responses were cut off, and other trainers would end them like finished ones; `chosen_truncated` and "
            "`rejected_truncated` tell which",
            stacklevel=2,
        )
    return [{**row, **_origin(one, recipe)} for row, one in zip(rows, pairs, strict=True)]


def _origin(one: Pair, recipe: Recipe) -> Row:
    columns: Row = {"problem_id": one.chosen.problem_id, "answer": one.chosen.answer}
    for side, rollout in zip(one._fields, one, strict=True):
        columns |= {f"{side}_idx": rollout.sample_idx, f"{side}_truncated": rollout.truncated}
        if recipe.mix or recipe.replace:
            columns[f"{side}_source"] = rollout.extra[SOURCE]
    return columns
