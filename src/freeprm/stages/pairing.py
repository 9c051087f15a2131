"""Pair: graded rollouts in; preference pairs out, or the rollouts that are left where pairs are not wanted.

out/pairs.jsonl       rows in TRL's preference format, `prompt`, `chosen` and `rejected`, with where each is from
out/rollouts.jsonl    instead of pairs, if asked for: the rows that are left, for objectives without pairs
out/manifest.json     counts every operation: what was there, what is left, what was left out and why
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from freeprm.core.curation import Operation, Recipe, curate, make_pairs, recalled, recorded
from freeprm.core.groups import Pair, rollout_key
from freeprm.core.mixing import SOURCE
from freeprm.formats.trl_preference import TRLPreference
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import OnBad, Row
from freeprm.io.runs import RunFolder, read_manifest
from freeprm.training.groups import Graded, read_graded, source_paths
from freeprm.types import Cost, Group

Keep = Literal["pairs", "rollouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingResult:
    """What pairing made."""

    folder: Path
    """Holds `pairs.jsonl`, or `rollouts.jsonl`."""
    counts: Mapping[str, int]
    """Rows written, and records skipped in reading by reason."""
    operations: list[Operation]
    """What was done to the data, in order."""


def pair(
    inputs: Sequence[Path],
    *,
    recipe: Recipe,
    out: Path,
    keep: Keep = "pairs",
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
) -> PairingResult:
    """Make training data of graded rollouts: the same that `train` makes for itself under the same settings.

    Args:
        inputs: graded rollouts, files or run folders.
        recipe: what is done; the sources that it names are read too.
        out: run folder.
        keep: what is written. Rollouts of groups with one class stay among `rollouts`, unless the recipe says how to
            pair: then those that are in a pair are written.
        columns: our column name -> theirs.
        on_bad: stop at the first broken record, or leave it out and count it.

    Raises:
        FreePRMError: see the errors of records, settings, data and run folders.
    """
    settings = {**asdict(recipe), "keep": keep, "columns": dict(columns or {}), "on_bad": on_bad}
    with RunFolder(out, stage="pair", settings=settings, inputs=[*inputs, *source_paths(recipe)]) as run:
        if run.complete:
            counts, operations = recalled((read_manifest(out) or {})["counts"])
            return PairingResult(folder=out, counts=counts, operations=operations)
        read = read_graded(inputs, recipe, columns=columns, on_bad=on_bad)
        rows, operations = _rows(read, recipe, keep)
        run.rewrite(keep, rows)
        counts = {keep: len(rows), **{f"skipped: {reason}": count for reason, count in read.skipped.items()}}
        run.finish(cost=Cost(), counts=recorded(counts, operations))
    return PairingResult(folder=out, counts=counts, operations=operations)


def _rows(read: Graded, recipe: Recipe, keep: Keep) -> tuple[list[Row], list[Operation]]:
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
    """TRL's rows of the pairs, in their order, each with what tells where it is from."""
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
