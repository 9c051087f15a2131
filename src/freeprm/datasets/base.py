"""The Protocol of a source of problems (`Dataset`), and reading and choosing for file-backed ones.

A dataset is a frozen dataclass whose fields are its options.
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
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""The instruction under which Qwen2.5-Math and others report; without one, small models often name no answer."""


class Dataset(Protocol):
    """Problems with gold answers."""

    def problems(self, split: str, *, limit: int | None, seed: int) -> Iterable[Problem]:
        """Problems of a split, the same for the same arguments, with unique ids and answers.

        Args:
            split: `train`, `dev`, `test`, ...
            limit: number of problems, chosen by the seed; None for all. A larger limit keeps those of a smaller one.
            seed: of the choice.

        Raises:
            ConfigError: no such split, or no limit on an endless supply.
            RecordError: a record is broken; names the file and the line.
        """
        ...


def split_files(path: Path, split: str) -> list[Path]:
    """The files of a split: the path itself if it is a file, else those of the folder or a hub's data set.

    In a folder these are `<split>.jsonl`, .json, .csv or .parquet, or shards, `<split>-00000-of-00003.parquet`,
    possibly in a subfolder, as in a hub's `data/` or `main/`.

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
        convert: a row, its source and its 0-based index -> its problem.
        on_bad: stop at a broken row, or leave it out with a warning that counts them.

    Raises:
        RecordError: names the file, the line, and what was expected; also for a repeated id.
    """
    problems: list[Problem] = []
    skipped: list[RecordError] = []
    seen: dict[str, Source] = {}
    for index, (source, row) in enumerate(pair for path in paths for pair in read_rows(path)):
        try:
            if isinstance(row, RecordError):
                raise row
            problem = convert(row, source, index)
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
        files, n_rows = ", ".join(map(str, paths)), len(seen) + len(skipped)
        warnings.warn(f"{files}: left out {len(skipped)} of {n_rows} rows; first {skipped[0]}", stacklevel=2)
    return problems


def text_of(row: Row, column: str, source: Source) -> str:
    """The text in a column; a RecordError if there is none."""
    return str(getattr(_row_with(column).of(row, source), column))


@cache
def _row_with(column: str) -> type[ForeignRow]:
    return cast("type[ForeignRow]", type("_Row", (ForeignRow,), {"__annotations__": {column: Filled}}))


def choose(items: Sequence[T], *, limit: int | None, seed: int) -> Iterator[T]:
    """`limit` random items, in their order; a larger limit keeps those of a smaller one."""
    order = list(range(len(items)))
    if limit is not None and limit < len(items):
        random.Random(seed).shuffle(order)
        order = sorted(order[:limit])
    return (items[index] for index in order)
