"""Graded rollouts as files have them: the inputs, and the sources that a recipe mixes in or replaces responses by."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freeprm.core.curation import Recipe
from freeprm.io.formats import OnBad, read_rollouts
from freeprm.types import Group, group_rollouts


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
    """The groups of the inputs and of each source, read one by one: their ids need not differ.

    Args:
        inputs: graded rollouts, files or run folders.
        recipe: names the other sources by their paths.
        columns: our column name -> theirs, in all of them.
        on_bad: stop at a broken record, or count it.
        expect: columns that some row of each source must have.

    Raises:
        RecordError: a broken record, or an expected column that no row of a source has.
    """
    groups, skipped = _read(inputs, columns=columns, on_bad=on_bad, expect=expect)
    sources: dict[str, list[Group]] = {}
    for path in source_paths(recipe):
        sources[str(path)], more = _read([path], columns=columns, on_bad=on_bad, expect=expect)
        skipped.update({f"{path}: {reason}": count for reason, count in more.items()})
    return Graded(groups, ", ".join(map(str, inputs)), sources, skipped)


def _read(
    paths: Sequence[Path], *, columns: Mapping[str, str] | None, on_bad: OnBad, expect: Sequence[str]
) -> tuple[list[Group], Counter[str]]:
    rows = read_rollouts(paths, columns=columns, on_bad=on_bad, expect=expect)
    groups = group_rollouts(rows.rollouts)
    again = len(rows.rollouts) - sum(len(group.rollouts) for group in groups)
    return groups, +(rows.skipped + Counter({"again, with the scores of another scorer": again}))
