"""What decides a run: its stage, its settings and the contents of its inputs, as a manifest keeps them."""

import hashlib
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from freeprm.errors import RecordError
from freeprm.io.folders import row_files
from freeprm.io.hub import fingerprint, is_hub_name

_VERSIONED = ("freeprm", "torch", "transformers", "tokenizers", "peft", "math-verify")


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's row files; the fingerprint of a hub's data set.

    Raises:
        RecordError: the path does not exist, or holds no rows.
    """
    if is_hub_name(path):
        return fingerprint(path)
    if not path.exists():
        raise RecordError(f"{path}: no such file or folder")
    digest = hashlib.sha256()
    for file in row_files(path) if path.is_dir() else [path]:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Of Python and the packages that results may depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def plain(value: Any) -> Any:
    """The same settings as JSON would give them back, so that they compare equal after a restart."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def difference(key: str, theirs: Any, ours: Any) -> str:
    """The first difference between what a folder holds and what was asked for; empty where there is none.

    Inputs are told by their contents: the same file under another name is the same input.
    """
    if key == "inputs" and isinstance(theirs, dict):
        if list(theirs.values()) == list(ours.values()):
            return ""
        changed = [name for name in ours if theirs.get(name, ours[name]) != ours[name]]
        if changed:
            return f"{changed[0]} has changed since"
        return f"it was made from {', '.join(theirs) or 'nothing'}, not from {', '.join(ours) or 'nothing'}"
    if isinstance(theirs, dict) and isinstance(ours, dict):
        parts = (difference(f"{key}.{name}", theirs.get(name), ours.get(name)) for name in sorted({*theirs, *ours}))
        return next((part for part in parts if part), "")
    return "" if theirs == ours else f"its {key} is {theirs!r}, not {ours!r}"
