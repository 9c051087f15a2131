"""Rows in and out: files, folders and data sets in, by their ending; JSON written, or a table by its ending.

What the columns of a row mean is the subject of `formats.py`.
"""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from freeprm.errors import ConfigError, NonFiniteError, RecordError
from freeprm.io.arrow import read_arrow, read_parquet, write_parquet
from freeprm.io.csv_table import read_csv, write_csv
from freeprm.io.folders import MANIFEST as MANIFEST
from freeprm.io.folders import row_files, suffix_of
from freeprm.io.hub import is_hub_name, read_hub
from freeprm.io.rows import Row as Row
from freeprm.io.rows import Source as Source
from freeprm.io.rows import finite, non_finite, written_whole

Rows = Iterator[tuple[Source, Row | RecordError]]


def read_rows(path: Path) -> Rows:
    """Every row of a file, a folder (see `row_files`) or a data set (see `hub.py`), with where it stood.

    A file is read by its ending: .json is one list, .csv, .parquet and .arrow are what they say, .jsonl.gz and any
    other are one JSON object a line. Only a .json file is held in memory as a whole. A row that is broken comes as the
    error itself, so that the caller decides whether it stops or counts.

    Raises:
        RecordError: the path does not exist, a folder holds no rows or not one table, or its run has not finished.
    """
    if is_hub_name(path):
        yield from read_hub(path)
    elif path.is_dir():
        for file in row_files(path):
            yield from read_rows(file)
    elif not path.exists():
        raise RecordError(f"{path}: no such file or folder")
    else:
        yield from _READERS.get(suffix_of(path), _read_lines)(path)


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as the file's ending says, whole or not at all: .jsonl, .json, .csv or .parquet.

    Raises:
        ConfigError: another ending.
        DataError: a column whose values have no type in common, in Parquet.
        NonFiniteError: as for `append_rows`.
    """
    table_writer(path)(path, rows)


def table_writer(path: Path) -> Callable[[Path, Iterable[Mapping[str, Any]]], None]:
    """What writes files of this ending.

    Raises:
        ConfigError: nothing does.
    """
    if path.suffix not in _WRITERS:
        raise ConfigError(f"{path}: cannot write {path.suffix or 'a file without ending'}; expected {_ENDINGS}")
    return _WRITERS[path.suffix]


def append_rows(file: BinaryIO, rows: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
    """Append rows and, with `sync`, force them to disk; where one cannot be written, none is.

    Raises:
        NonFiniteError: a value is NaN or infinite, which JSON cannot hold; names the row and the field.
    """
    file.write(b"".join([_dump(row, where=f"{file.name}, row {number}") for number, row in enumerate(rows, 1)]))
    file.flush()
    if sync:
        os.fsync(file.fileno())


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file anew, whole or not at all.

    Raises:
        NonFiniteError: as for `append_rows`.
    """
    _write_whole(path, (_dump(row, where=f"{path}, row {number}") for number, row in enumerate(rows, 1)))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, whole or not at all.

    Raises:
        NonFiniteError: a value is NaN or infinite, which JSON cannot hold; names the field.
    """
    _write_whole(path, [_dump(value, where=str(path), indent=2)])


def _read_lines(path: Path) -> Rows:
    with path.open("rb") as stream:
        yield from _parsed(stream, path)


def _read_gzip(path: Path) -> Rows:
    try:
        with gzip.open(path, "rb") as stream:
            yield from _parsed(cast("BinaryIO", stream), path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RecordError(f"{path}: not a whole gzip file ({error}); it was probably cut short") from error


def _parsed(stream: BinaryIO, path: Path) -> Rows:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield Source(path, number), _parse(line, Source(path, number))


def _parse(line: bytes, source: Source) -> Row | RecordError:
    torn = "" if line.endswith(b"\n") else " The line has no end: the file was probably cut while it was written."
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return RecordError(
            f"{source}: not UTF-8 text ({error.reason}, byte {error.start} of the line); "
            f"expected JSON Lines in UTF-8.{torn}",
            reason="not UTF-8 text",
        )
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return RecordError(f"{source}: not valid JSON ({error}).{torn}", reason="not valid JSON")
    return _checked(row, source)


def _checked(row: Any, source: Source) -> Row | RecordError:
    if not isinstance(row, dict):
        hint = ". A file that is one list of rows is named .json" if isinstance(row, list) else ""
        return RecordError(
            f"{source}: expected a JSON object, got {json.dumps(row)[:80]}{hint}", reason="not a JSON object"
        )
    return finite(row, source)


def _read_list(path: Path) -> Rows:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not valid JSON ({error}); a file with one object a line is named .jsonl") from error
    if not isinstance(rows, list):
        raise RecordError(f"{path}: expected a JSON list of objects, got one {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield Source(path, number), _checked(row, Source(path, number))


def _dump(value: Any, *, where: str, indent: int | None = None) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError as error:
        if (found := non_finite(value)) is None:
            raise
        raise NonFiniteError(f"{where}: {found[0]}: is {found[1]}; expected a finite number") from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(value, indent=indent).encode() + b"\n"


def _write_whole(path: Path, lines: Iterable[bytes]) -> None:
    with written_whole(path) as partial, partial.open("wb") as file:
        file.writelines(lines)


def _write_list(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_json(path, list(rows))


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".json": _read_list, ".jsonl.gz": _read_gzip, ".csv": read_csv, ".parquet": read_parquet, ".arrow": read_arrow,
}  # fmt: skip
_WRITERS: Mapping[str, Callable[[Path, Iterable[Mapping[str, Any]]], None]] = {
    ".jsonl": write_rows, ".json": _write_list, ".csv": write_csv, ".parquet": write_parquet,
}  # fmt: skip
_ENDINGS = ", ".join(_WRITERS)
