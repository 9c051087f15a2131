"""What a source of problems must be (`Dataset`), and how the file-backed ones read and choose.

A dataset is a frozen dataclass: its fields are its options, with defaults where there are any.
"""

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from freeprm.errors import ConfigError, RecordError
from freeprm.io.formats import OnBad
from freeprm.io.jsonl import Row, Source, read_rows
from freeprm.types import Problem

T = TypeVar("T")


class Dataset(Protocol):
    """Problems with gold answers."""

    def problems(self, split: str, *, limit: int | None, seed: int) -> Iterable[Problem]:
        """Problems of a split, the same for the same arguments, with unique ids and an answer each.

        Args:
            split: `train`, `dev`, `test`, ... as far as the dataset has them.
            limit: how many, chosen by the seed; None for all. A larger limit keeps those of a smaller one.
            seed: of the choice.

        Raises:
            ConfigError: no such split, or all were asked for where there is no end of them.
            RecordError: a record is broken; names the file and the line.
        """
        ...


def split_file(path: Path, split: str) -> Path:
    """The file of a split: the path itself, or `<split>.jsonl` in it.

    Raises:
        ConfigError: the folder has no such file.
    """
    if not path.is_dir():
        return path
    file = path / f"{split}.jsonl"
    if not file.exists():
        found = ", ".join(sorted(item.stem for item in path.glob("*.jsonl"))) or "none"
        raise ConfigError(f"{path}: no {split}.jsonl for split {split!r}; the folder has the splits {found}")
    return file


def read_problems(
    path: Path, convert: Callable[[Row, Source, int], Problem], *, on_bad: OnBad = "raise"
) -> list[Problem]:
    """The problems of a file of rows.

    Args:
        path: .jsonl or .json, or a folder of .jsonl files.
        convert: a row, where it stood and its 0-based index, to its problem.
        on_bad: stop at a broken row, or leave it out with a warning that counts them.

    Raises:
        RecordError: names the file, the line, and what was expected; also for an id that stood before.
    """
    problems: list[Problem] = []
    skipped: list[RecordError] = []
    seen: dict[str, Source] = {}
    for index, (source, row) in enumerate(read_rows(path)):
        try:
            problem = _problem(row, source, index, convert)
        except RecordError as error:
            if on_bad == "raise":
                raise RecordError(f"{error}. on_bad = skip leaves such rows out") from error
            skipped.append(error)
            continue
        if problem.problem_id in seen:
            first = seen[problem.problem_id]
            raise RecordError(f"{source}: problem_id: {problem.problem_id!r} is already at {first}; expected each once")
        seen[problem.problem_id] = source
        problems.append(problem)
    if skipped:
        warnings.warn(
            f"{path}: left out {len(skipped)} of {len(seen) + len(skipped)} rows; first {skipped[0]}", stacklevel=2
        )
    return problems


def text_of(row: Row, column: str, source: Source) -> str:
    """The text in a column.

    Raises:
        RecordError: there is none; names the columns that there are.
    """
    value: Any = row.get(column)
    if not isinstance(value, str) or not value.strip():
        found = f"is {value!r}" if column in row else f"no such column; the row has {', '.join(row)}"
        raise RecordError(f"{source}: {column}: {found}; expected text")
    return value


def choose(items: Sequence[T], *, limit: int | None, seed: int) -> Iterator[T]:
    """`limit` of the items by seeded lot, in their own order; a larger limit keeps those of a smaller one."""
    order = list(range(len(items)))
    if limit is not None and limit < len(items):
        random.Random(seed).shuffle(order)
        order = sorted(order[:limit])
    return (items[index] for index in order)


def _problem(
    row: Row | RecordError, source: Source, index: int, convert: Callable[[Row, Source, int], Problem]
) -> Problem:
    if isinstance(row, RecordError):
        raise row
    return convert(row, source, index)
