"""Which files of a folder hold its rows: a run folder, a saved Hugging Face dataset, or a copy of one from a hub."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from freeprm.errors import ConfigError, RecordError

MANIFEST = "manifest.json"
"""What makes a folder a run folder; see `runs.py`."""
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet", ".arrow")
"""Endings of files that hold rows wherever they are found; a .json file is rows only where it is named."""

_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"


def row_files(folder: Path) -> list[Path]:
    """The files whose rows are the folder's, in order.

    Of a finished run its .jsonl files; of what `Dataset.save_to_disk` wrote its .arrow files; else all files that
    hold rows, or those of the one subfolder that has any, as in a copy of a hub's repository.

    Raises:
        RecordError: there are none, the run has not finished, or the folder holds more than one table and does not
            say which is meant: several splits, several subfolders, or the rows in several containers.
    """
    made = _manifest(folder)
    if made or (folder / "reward.json").exists():
        return _run_files(folder, made)
    if (folder / _SAVED).exists():
        return [folder / item["filename"] for item in _json(folder / _SAVED).get("_data_files", ())]
    if files := _row_files_at(folder):
        _refuse_several(folder, files)
        return files
    below = sorted({file.parent for suffix in ROW_SUFFIXES for file in folder.rglob(f"*{suffix}")})
    if not below:
        raise RecordError(f"{folder}: a folder {_lacking(ROW_SUFFIXES)}; expected rows. A .json file is named itself")
    if len(below) > 1:
        kind = "splits" if (folder / _SAVED_SPLITS).exists() else "folders"
        raise RecordError(
            f"{folder}: holds rows in {len(below)} {kind}, {_listed(below)}; expected one table. Name the one that is "
            "meant"
        )
    return row_files(below[0])


def split_files_in(folder: Path, split: str) -> list[Path]:
    """The file of a split, or its parts: `test.jsonl`, `main/test-00000-of-00001.parquet`, what `save_to_disk` wrote.

    Raises:
        ConfigError: there is none, or more than one; says what there is.
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


def _manifest(folder: Path) -> dict[str, Any]:
    """What a run folder says of itself; empty for other folders."""
    made = _json(folder / MANIFEST)
    return made if "stage" in made else {}


def _json(file: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is no such file, or something else in it."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _row_files_at(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if suffix_of(item) in ROW_SUFFIXES and item.is_file())


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


def _lacking(suffixes: Iterable[str]) -> str:
    first, *others, last = suffixes
    return f"without {first} files, nor any of {', '.join(others)} or {last}"


def _listed(folders: list[Path]) -> str:
    return ", ".join(map(str, folders[:4])) + (", ..." if len(folders) > 4 else "")
