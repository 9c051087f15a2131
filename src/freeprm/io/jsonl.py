"""Reading and writing rows of JSON: files and folders in, append-only files out.

A row is a dict. What the columns of a row mean is the subject of `formats.py`.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from freeprm.errors import NonFiniteError, RecordError

MANIFEST = "manifest.json"
"""What makes a folder a run folder; see `runs.py`."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row stood, for messages: `rollouts.jsonl:17`."""

    path: Path
    line: int
    """Counted from 1; the entry's number in a .json list."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def read_rows(path: Path) -> Iterator[tuple[Source, Row | RecordError]]:
    """Every row of a .jsonl file, a .json list, or a finished run folder's .jsonl files, with where it stood.

    A line that is not a JSON object comes as the error itself, so that the caller decides whether it
    stops or counts.

    Raises:
        RecordError: the path does not exist, a folder holds no rows, or its run has not finished.
    """
    if path.is_dir():
        for file in _row_files(path):
            yield from read_rows(file)
    elif not path.exists():
        raise RecordError(f"{path}: no such file or folder")
    elif path.suffix == ".json":
        yield from _read_list(path)
    else:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield Source(path, number), _parse(line, Source(path, number))


def append_rows(file: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows and force them to disk; where one cannot be written, none is.

    Raises:
        NonFiniteError: a value is NaN or infinite, which JSON cannot hold; names the row and the field.
    """
    file.write(b"".join([_dump(row, where=f"{file.name}, row {number}") for number, row in enumerate(rows, 1)]))
    file.flush()
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


def _row_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.jsonl"))
    made = _manifest(folder)
    stage = f"the folder of a `freeprm {made['stage']}` " if made else "a folder "
    if not files:
        is_model = made.get("stage") == "train" or (folder / "reward.json").exists()
        hint = f". It is a reward model: freeprm score ROLLOUTS --prm {folder}" if is_model else ""
        raise RecordError(f"{folder}: {stage}without .jsonl files; expected rows, e.g. a file of rollouts{hint}")
    if made.get("status", "complete") != "complete":
        raise RecordError(
            f"{folder}: {stage}that has not finished; give its command again to finish it, or name the .jsonl files "
            "in the folder to take the rows there are"
        )
    return files


def _manifest(folder: Path) -> dict[str, Any]:
    """What a run folder says of itself; empty for other folders."""
    try:
        made = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return made if isinstance(made, dict) and "stage" in made else {}


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
    if (found := _non_finite(row)) is not None:
        field, value = found
        return RecordError(
            f"{source}: {field}: is {value}; expected a finite number, or null where there is none",
            reason=f"{field} is not a finite number",
        )
    return row


def _read_list(path: Path) -> Iterator[tuple[Source, Row | RecordError]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not valid JSON ({error}); a file with one object a line is named .jsonl") from error
    if not isinstance(rows, list):
        raise RecordError(f"{path}: expected a JSON list of objects, got one {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield Source(path, number), _checked(row, Source(path, number))


def _non_finite(value: Any) -> tuple[str, float] | None:
    """The place and value of the first number in a document that is NaN or infinite: `("step_scores.2", nan)`."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, float):
            if not math.isfinite(item):
                return str(key), item
        elif isinstance(item, dict | list | tuple) and (found := _non_finite(item)) is not None:
            return f"{key}.{found[0]}", found[1]
    return None


def _dump(value: Any, *, where: str, indent: int | None = None) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError as error:
        if (found := _non_finite(value)) is None:
            raise
        raise NonFiniteError(f"{where}: {found[0]}: is {found[1]}; expected a finite number") from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(value, indent=indent).encode() + b"\n"


def _write_whole(path: Path, lines: Iterable[bytes]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
