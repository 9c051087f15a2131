"""Rows of any container: where they were read, how their columns are mapped, and how they are written as JSON.

Files are written atomically; rows are appended whole, and a row that a crash tore is cut off.
"""

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from freeprm.errors import ConfigError, NonFiniteError, RecordError

Row = dict[str, Any]
ABSENT = object()
"""Marks a missing value; null is a value."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row was read, for messages: `rollouts.jsonl:17`."""

    path: Path
    line: int
    """From 1: the line on which the row begins, or the row's number in a container without lines."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


OnBad = Literal["raise", "skip"]
"""Stop at the first broken row, or leave it out and count it."""
Rows = Iterator[tuple[Source, Row | RecordError]]
"""A broken row comes as its error, so that the caller decides whether to stop or to count it."""


def finite(row: Row, source: Source) -> Row | RecordError:
    """The row, or the error of its first NaN or infinite number, at any depth."""
    if (found := non_finite(row)) is None:
        return row
    field, value = found
    return RecordError(
        f"{source}: {field}: is {value}; expected a finite number, or null where there is none",
        reason=f"{field} is not a finite number",
    )


def non_finite(value: Any) -> tuple[str, float] | None:
    """Path and value of the first NaN or infinite number in a document: `("step_scores.2", nan)`."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, float):
            if not math.isfinite(item):
                return str(key), item
        elif isinstance(item, dict | list | tuple) and (found := non_finite(item)) is not None:
            return f"{key}.{found[0]}", found[1]
    return None


def refuse_non_finite(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Raise a NonFiniteError that names the row and the field, if a number to be written is NaN or infinite."""
    for number, row in enumerate(rows, 1):
        _check_finite(row, where=f"{path}, row {number}")


def _check_finite(value: Any, *, where: str) -> None:
    if (found := non_finite(value)) is not None:
        raise NonFiniteError(f"{where}: {found[0]}: is {found[1]}; expected a finite number")


def at(row: Row, name: str) -> Any:
    """A row's value by column name, or by path: `output.score`, `output[0].text`; a list of values: `output[].text`.

    A column whose very name has dots or brackets comes first. `ABSENT` if there is no such value.
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
    """A row's values of mapped columns, by our names; columns that the row lacks are left out.

    A name of ours may be mapped to another of ours that is mapped itself: `problem_id=prompt` beside `prompt=question`.

    Args:
        row: as read.
        columns: our name -> the row's name or path (see `at`).
    """
    found = {name: at(row, theirs) for name, theirs in columns.items()}
    for name, theirs in columns.items():
        if found[name] is ABSENT and theirs in columns:
            found[name] = at(row, columns[theirs])
    return {name: value for name, value in found.items() if value is not ABSENT}


def renamed(row: Row, columns: Mapping[str, str], found: Row, *, ours: Collection[str]) -> Row:
    """The row with mapped columns under our names; another column of such a name becomes `source_<name>`.

    Args:
        row, columns: as for `mapped`.
        found: its result.
        ours: columns that are kept even if another is read from them.
    """
    taken = {theirs for name, theirs in columns.items() if name in found and (theirs not in ours or theirs in columns)}
    rest = {f"source_{name}" if name in found else name: value for name, value in row.items() if name not in taken}
    return {**rest, **found}


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise a ConfigError if two of our names are mapped to one column, except the prompt as the problem's id."""
    first: dict[str, str] = {}
    for name, theirs in columns.items():
        other = first.setdefault(theirs, name)
        if {name, other} not in ({name}, {"problem_id", "prompt"}):
            raise ConfigError(f"--map {other}={theirs} and --map {name}={theirs}: one column cannot be both")


def short(value: Any) -> str:
    """The value's repr, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a new JSON Lines file atomically.

    Raises:
        NonFiniteError: a value is NaN or infinite, which JSON cannot hold; names the row and the field.
    """
    with written_whole(path) as partial, partial.open("wb") as file:
        file.writelines(_lines(path, rows))


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
    """Append JSON Lines, with `sync` flushed to disk; on an error the file stays as it was.

    Raises:
        NonFiniteError: as for `write_rows`.
        OSError: the disk is full, or fails.
    """
    lines = b"".join(_lines(path, rows))
    before = path.stat().st_size if path.exists() else None
    try:
        with path.open("ab") as file:
            file.write(lines)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            os.truncate(path, before or 0)
        raise
    if before is None:
        sync_path(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically.

    Raises:
        NonFiniteError: a value is NaN or infinite; names the field.
    """
    document = _dump(value, where=str(path), indent=2)
    with written_whole(path) as partial:
        partial.write_bytes(document)


def write_text(path: Path, text: str) -> None:
    """Write one text atomically."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path that replaces `path` when the `with` block ends, and is deleted on an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        sync_path(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Flush a file's contents, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cut_torn_rows(path: Path) -> bool:
    """Cut off an unfinished last row, and everything from the first zero byte on; whether anything was cut off.

    After a power loss a file may have its new length without its new contents, which read as zeros. What was synced
    before is whole, and JSON holds no zero byte.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = _line_end_before(file, _first_zero(file, size))
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    return end < size


def _first_zero(file: BinaryIO, size: int) -> int:
    """Offset of the first zero byte; the size, if there is none."""
    file.seek(0)
    start = 0
    while block := file.read(_BLOCK):
        if (found := block.find(b"\0")) >= 0:
            return start + found
        start += len(block)
    return size


def _line_end_before(file: BinaryIO, stop: int) -> int:
    """Offset behind the last line break before `stop`."""
    while stop > 0:
        start = max(0, stop - _BLOCK)
        file.seek(start)
        if (newline := file.read(stop - start).rfind(b"\n")) >= 0:
            return start + newline + 1
        stop = start
    return 0


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    return (_dump(row, where=f"{path}, row {number}") for number, row in enumerate(rows, 1))


def _dump(value: Any, *, where: str, indent: int | None = None) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        _check_finite(value, where=where)
        raise
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(value, indent=indent).encode() + b"\n"
