"""A row of a file whatever its container, where it stood, what it calls its columns, and files written whole."""

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeprm.errors import ConfigError, RecordError

Row = dict[str, Any]
ABSENT = object()
"""What stands where nothing does; null is something."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row stood, for messages: `rollouts.jsonl:17`."""

    path: Path
    line: int
    """Counted from 1: the line that a row begins on; its number, where the container has no lines."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def finite(row: Row, source: Source) -> Row | RecordError:
    """The row, or the error of its first number that is NaN or infinite, at any depth."""
    if (found := non_finite(row)) is None:
        return row
    field, value = found
    return RecordError(
        f"{source}: {field}: is {value}; expected a finite number, or null where there is none",
        reason=f"{field} is not a finite number",
    )


def non_finite(value: Any) -> tuple[str, float] | None:
    """The place and value of the first number in a document that is NaN or infinite: `("step_scores.2", nan)`."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, float):
            if not math.isfinite(item):
                return str(key), item
        elif isinstance(item, dict | list | tuple) and (found := non_finite(item)) is not None:
            return f"{key}.{found[0]}", found[1]
    return None


def at(row: Row, name: str) -> Any:
    """What a row has under a column's name, or else along a path: `output.score`, `output[0].text`, `output[].text`.

    `[]` takes all entries of a list. A column whose very name has dots or brackets comes first.

    Returns:
        The value, a list of them behind `[]`, or `ABSENT`.
    """
    if name in row:
        return row[name]
    parts = re.findall(r"[^.\[\]]+|\[\d*\]", name)
    return _along(row, parts) if len(parts) > 1 else ABSENT


def _along(value: Any, parts: list[str]) -> Any:
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if not part.startswith("["):
        return _along(value[part], rest) if isinstance(value, dict) and part in value else ABSENT
    if not isinstance(value, list):
        return ABSENT
    if part == "[]":
        found = [_along(item, rest) for item in value]
        return ABSENT if ABSENT in found else found
    index = int(part[1:-1])
    return _along(value[index], rest) if index < len(value) else ABSENT


def mapped(row: Row, columns: Mapping[str, str]) -> Row:
    """What a row has for each of our names that are mapped; those for which it has nothing are not there.

    A name of ours may be mapped to another of ours that is mapped itself: `problem_id=prompt` beside `prompt=question`.

    Args:
        row: as it stood.
        columns: our name -> the row's, or a path (see `at`).
    """
    found = {name: at(row, theirs) for name, theirs in columns.items()}
    for name, theirs in columns.items():
        if found[name] is ABSENT and theirs in columns:
            found[name] = at(row, columns[theirs])
    return {name: value for name, value in found.items() if value is not ABSENT}


def renamed(row: Row, columns: Mapping[str, str], found: Row, *, ours: Collection[str]) -> Row:
    """The row under our names, as far as it has the others.

    A column that bears one of our names but is not meant by it becomes `source_<name>`.

    Args:
        row, columns: as for `mapped`.
        found: as `mapped` gives it.
        ours: columns that stay where they are even if another is read from them.
    """
    taken = {theirs for name, theirs in columns.items() if name in found and (theirs not in ours or theirs in columns)}
    rest = {f"source_{name}" if name in found else name: value for name, value in row.items() if name not in taken}
    return {**rest, **found}


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse two names for one column, but for the prompt as the problem's id.

    Raises:
        ConfigError: names both.
    """
    first: dict[str, str] = {}
    for name, theirs in columns.items():
        other = first.setdefault(theirs, name)
        if {name, other} not in ({name}, {"problem_id", "prompt"}):
            raise ConfigError(f"--map {other}={theirs} and --map {name}={theirs}: one column cannot be both")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Another path to write to; what stands there at the end of `with` becomes the file, and nothing on an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
