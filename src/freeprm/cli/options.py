"""Options that several commands share, and how they are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from freeprm.errors import ConfigError
from freeprm.io.arrow import is_hub_name
from freeprm.io.rows import OnBad


def existing(paths: list[Path]) -> list[Path]:
    """The paths, each of which must exist or be a hub's data set.

    Raises:
        typer.BadParameter: one does not exist.
    """
    for path in paths:
        if not path.exists() and not is_hub_name(path):
            raise typer.BadParameter(f"Path '{path}' does not exist.")
    return paths


Inputs = Annotated[
    list[Path],
    typer.Argument(
        help="Files of rows (.jsonl, .json, .csv, .parquet), folders, or hf:owner/name[:config][@revision][#split].",
        callback=existing,
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder; the same command resumes it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="ours=theirs: the rows' name for one of our columns, or a path into one: output.score, output[].text.",
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Count broken records instead of stopping at the first.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
ExecutorName = Annotated[
    str, typer.Option("--executor", help="Where the work is done: local, ray, or package.module:Name.")
]
ExecutorOptions = Annotated[
    list[str] | None, typer.Option("--executor-option", help="name=value, a field of the executor, e.g. workers=8.")
]
Scores = Annotated[
    list[Path] | None,
    typer.Option("--scores", help="Answers of /pooling, /classify or /score on the rollouts, one a line.", exists=True),
]
ScoresOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--scores-option", help="name=value: good, values, column, mask, id, splitter or scorer; docs/elsewhere.md."
    ),
]
By = Annotated[list[str] | None, typer.Option(help="Break the numbers down by this column, e.g. level.")]


def read_map(assignments: Sequence[str] | None) -> dict[str, str]:
    """`--map ours=theirs` as a dictionary.

    Raises:
        ConfigError: an assignment without `=`, or a second one of the same name.
    """
    pairs: dict[str, str] = {}
    for assignment in assignments or ():
        ours, equals, theirs = assignment.partition("=")
        if not equals or not ours or not theirs:
            raise ConfigError(f"--map {assignment}: expected ours=theirs, e.g. --map correct=label")
        if pairs.setdefault(ours, theirs) != theirs:
            raise ConfigError(f"--map {assignment}: {ours} is {pairs[ours]} already")
    return pairs


def on_bad(skip_bad: bool) -> OnBad:
    """What happens at a broken record."""
    return "skip" if skip_bad else "raise"


def read_names(text: str) -> list[str]:
    """`min, sum` as names.

    Raises:
        ConfigError: there is none, or nothing between two commas.
    """
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise ConfigError(f"{text!r}: expected names with commas between them, e.g. min,sum")
    return names


def read_numbers(text: str | None) -> list[int] | None:
    """`4,16,64` as numbers, None for none.

    Raises:
        ConfigError: not whole numbers above 0.
    """
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{text}: expected whole numbers with commas, e.g. 4,16,64") from error
    if min(numbers) < 1:
        raise ConfigError(f"{text}: expected numbers from 1")
    return numbers
