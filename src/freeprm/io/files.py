"""Rows read from files, folders and hubs, and tables written, by file ending; which files hold a folder's rows."""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from freeprm.errors import ConfigError, RecordError
from freeprm.io.arrow import hub_fingerprint, is_hub_name, read_arrow, read_hub, read_parquet, write_parquet
from freeprm.io.csv_table import read_csv, write_csv
from freeprm.io.rows import Row, Rows, Source, finite, write_json, write_rows

MANIFEST = "manifest.json"
"""What makes a folder a run folder; see `runs.py`."""
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet", ".arrow")
"""Endings of files that hold rows wherever they are found; a .json file does only where it is named."""

_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"


def read_rows(path: Path) -> Rows:
    """Every row of a file, a folder (see `row_files`) or a hub's data set, with its source.

    The ending decides how a file is read: .json is one list, .csv, .parquet and .arrow are what they say, .jsonl.gz
    and any other are one JSON object a line. Only a .json file is held in memory as a whole.

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
    """Write rows atomically, in the format of the file's ending: .jsonl, .json, .csv or .parquet.

    Raises:
        ConfigError: another ending.
        DataError: a column whose values have no type in common, in Parquet.
        NonFiniteError: a value is NaN or infinite.
    """
    table_writer(path)(path, rows)


def table_writer(path: Path) -> Callable[[Path, Iterable[Mapping[str, Any]]], None]:
    """The writer of files of this ending; a ConfigError if there is none."""
    if path.suffix not in _WRITERS:
        endings = ", ".join(_WRITERS)
        raise ConfigError(f"{path}: cannot write {path.suffix or 'a file without ending'}; expected {endings}")
    return _WRITERS[path.suffix]


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's row files; the fingerprint of a hub's data set."""
    if is_hub_name(path):
        return hub_fingerprint(path)
    if not path.exists():
        raise RecordError(f"{path}: no such file or folder")
    digest = hashlib.sha256()
    for file in row_files(path) if path.is_dir() else [path]:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def row_files(folder: Path) -> list[Path]:
    """The files that hold a folder's rows, in order.

    The .jsonl files of a finished run; the .arrow files of `Dataset.save_to_disk`; else all files of rows, or those of
    the only subfolder that has any, as in a copy of a hub's repository.

    Raises:
        RecordError: there are none, the run has not finished, or the folder holds more than one table: several splits,
            several subfolders, or the rows in several containers.
    """
    made = _object(folder / MANIFEST)
    if "stage" in made or (folder / "reward.json").exists():
        return _run_files(folder, made if "stage" in made else {})
    if (folder / _SAVED).exists():
        return [folder / item["filename"] for item in _object(folder / _SAVED).get("_data_files", ())]
    if files := sorted(item for item in folder.iterdir() if suffix_of(item) in ROW_SUFFIXES and item.is_file()):
        _refuse_several(folder, files)
        return files
    below = sorted({file.parent for suffix in ROW_SUFFIXES for file in folder.rglob(f"*{suffix}")})
    if not below:
        first, *others, last = ROW_SUFFIXES
        raise RecordError(
            f"{folder}: a folder without {first} files, nor any of {', '.join(others)} or {last}; expected rows. "
            "A .json file is named itself"
        )
    if len(below) > 1:
        kind = "splits" if (folder / _SAVED_SPLITS).exists() else "folders"
        listed = ", ".join(map(str, below[:4])) + (", ..." if len(below) > 4 else "")
        raise RecordError(
            f"{folder}: holds rows in {len(below)} {kind}, {listed}; expected one table. Name the one that is meant"
        )
    return row_files(below[0])


def split_files_in(folder: Path, split: str) -> list[Path]:
    """The file or shards of a split: `test.jsonl`, `main/test-00000-of-00001.parquet`, what `save_to_disk` wrote.

    Raises:
        ConfigError: there is none, or more than one; lists what there is.
    """
    if (folder / split / _SAVED).exists():
        return row_files(folder / split)
    tables: dict[tuple[Path, str, str], list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        suffix = suffix_of(file)
        if suffix in (*ROW_SUFFIXES, ".json") and file.is_file():
            name = file.name[: -len(suffix)]
            part = _SHARD.match(name)
            tables.setdefault((file.parent, suffix, part["split"] if part else name), []).append(file)
    found = {key: files for key, files in tables.items() if key[2] == split}
    chosen = [files for key, files in found.items() if key[0] == folder] or list(found.values())
    if not chosen:
        known = ", ".join(sorted({name for _, suffix, name in tables if suffix in ROW_SUFFIXES})) or "none"
        raise ConfigError(
            f"{folder}: no {split}.jsonl (.json, .csv, .parquet) for split {split!r}; the folder has the splits {known}"
        )
    if len(chosen) > 1:
        firsts = ", ".join(str(files[0]) for files in chosen)
        raise ConfigError(f"{folder}: split {split!r} is there {len(chosen)} times: {firsts}; name the one meant")
    return chosen[0]


def suffix_of(path: Path) -> str:
    """`.jsonl.gz` of `a.b.jsonl.gz`, `.csv` of `a.csv`."""
    return ("".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix).lower()


def _run_files(folder: Path, made: dict[str, Any]) -> list[Path]:
    files = sorted(folder.glob("*.jsonl"))
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


def _object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file, or something else in it."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_several(folder: Path, files: list[Path]) -> None:
    kinds = sorted({suffix_of(file) for file in files})
    if len(kinds) > 1:
        raise RecordError(
            f"{folder}: holds rows in files of several kinds, {', '.join(kinds)}; name the files that are meant"
        )
    splits = sorted({found["split"] for file in files if (found := _SHARD.match(file.name.removesuffix(kinds[0])))})
    if len(splits) > 1:
        raise RecordError(
            f"{folder}: holds the splits {', '.join(splits)}; say which is meant, e.g. hf:{folder}#{splits[0]}"
        )


def _read_lines(path: Path) -> Rows:
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield Source(path, number), _parse(line, Source(path, number))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RecordError(f"{path}: not a whole gzip file ({error}); it was probably cut short") from error


def _parse(line: bytes, source: Source) -> Row | RecordError:
    torn = "" if line.endswith(b"\n") else " The line has no end: the file was probably cut while it was written."
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return RecordError(
            f"{source}: not UTF-8 text ({error.reason}, byte {error.start} of the line); "
            f"expected JSON Lines in UTF-8.{torn}",
            reason="not UTF-8 text",
        )
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


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".json": _read_list, ".csv": read_csv, ".parquet": read_parquet, ".arrow": read_arrow,
}  # fmt: skip
_WRITERS: Mapping[str, Callable[[Path, Iterable[Mapping[str, Any]]], None]] = {
    ".jsonl": write_rows, ".json": lambda path, rows: write_json(path, list(rows)), ".csv": write_csv,
    ".parquet": write_parquet,
}  # fmt: skip
