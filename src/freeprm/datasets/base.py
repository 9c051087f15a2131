"""What a source of problems must be (`Dataset`), and how the file-backed ones read and choose.

A dataset is a frozen dataclass: its fields are its options, with defaults where there are any.
"""

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar, cast

from freeprm.errors import RecordError
from freeprm.io.arrow import is_hub_name, with_split
from freeprm.io.columns import Filled, ForeignRow
from freeprm.io.files import read_rows, split_files_in
from freeprm.io.rows import OnBad, Row, Source
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


def split_files(path: Path, split: str) -> list[Path]:
    """The files of a split: the path itself where it is a file, else what the folder or a hub's data set has for it.

    In a folder that is `<split>.jsonl`, .json, .csv or .parquet, or its parts, `<split>-00000-of-00003.parquet`; it may
    lie in a subfolder, as in a hub's `data/` or `main/`.

    Raises:
        ConfigError: the folder has no such file, or has it more than once.
    """
    if is_hub_name(path):
        return [with_split(path, split)]
    return split_files_in(path, split) if path.is_dir() else [path]


def read_problems(
    paths: Sequence[Path], convert: Callable[[Row, Source, int], Problem], *, on_bad: OnBad = "raise"
) -> list[Problem]:
    """The problems of files of rows.

    Args:
        paths: files, folders or hub names, as `read_rows` takes them.
        convert: a row, where it stood and its 0-based index, to its problem.
        on_bad: stop at a broken row, or leave it out with a warning that counts them.

    Raises:
        RecordError: names the file, the line, and what was expected; also for an id that stood before.
    """
    problems: list[Problem] = []
    skipped: list[RecordError] = []
    seen: dict[str, Source] = {}
    for index, (source, row) in enumerate(pair for path in paths for pair in read_rows(path)):
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
        places, n_rows = ", ".join(map(str, paths)), len(seen) + len(skipped)
        warnings.warn(f"{places}: left out {len(skipped)} of {n_rows} rows; first {skipped[0]}", stacklevel=2)
    return problems


def text_of(row: Row, column: str, source: Source) -> str:
    """The text in a column.

    Raises:
        RecordError: there is none; names the columns that there are.
    """
    return str(getattr(_row_with(column).of(row, source), column))


@cache
def _row_with(column: str) -> type[ForeignRow]:
    return cast("type[ForeignRow]", type("_Row", (ForeignRow,), {"__annotations__": {column: Filled}}))


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
