"""Rows of a data set on the Hugging Face hub, or of a local copy of one: `hf:owner/name[:config][@revision][#split]`.

Such a name stands wherever a file may stand, and is handled as a path that names no file. `hf:FOLDER#split` takes one
split of a local folder in a hub's layout.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from freeprm.errors import RecordError
from freeprm.io.arrow import plain_row
from freeprm.io.rows import Row, Source

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<name>[^:@#]+)(?::(?P<config>[^:@#]+))?(?:@(?P<revision>[^@#]+))?(?:#(?P<split>.+))?")


class HubName(NamedTuple):
    """The parts of a name."""

    name: str
    config: str | None
    revision: str | None
    split: str | None


def is_hub_name(path: Path) -> bool:
    """Whether a path is the name of a data set on a hub."""
    return str(path).startswith(PREFIX)


def parse_hub_name(path: Path) -> HubName:
    """The parts of `hf:owner/name[:config][@revision][#split]`.

    Raises:
        RecordError: it is not of that form.
    """
    found = _NAME.fullmatch(str(path))
    if not found:
        raise RecordError(f"{path}: expected hf:owner/name[:config][@revision][#split], e.g. hf:openai/gsm8k:main#test")
    return HubName(**found.groupdict())


def with_split(path: Path, split: str) -> Path:
    """The same name for a split, if it names none yet."""
    return path if parse_hub_name(path).split else Path(f"{path}#{split}")


def read_hub(path: Path) -> Iterator[tuple[Source, Row | RecordError]]:
    """The rows of a data set, counted from 1; downloaded once, and read from disk as they are asked for.

    Raises:
        RecordError: no such data set, configuration or split, several splits and none named, or no way to the hub.
    """
    for number, row in enumerate(_loaded(path), 1):
        yield Source(path, number), plain_row(row, Source(path, number))


def fingerprint(path: Path) -> str:
    """What tells the contents of a data set, as `datasets` computes it.

    Raises:
        RecordError: as `read_hub`.
    """
    return str(_loaded(path)._fingerprint)


@cache
def _loaded(path: Path) -> "Dataset":
    from datasets.exceptions import DatasetsError

    from datasets import Dataset, load_dataset

    wanted = parse_hub_name(path)
    try:
        found = load_dataset(wanted.name, wanted.config, revision=wanted.revision, split=wanted.split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise RecordError(f"{path}: {_why(error)}") from error
    if isinstance(found, Dataset):
        return found
    if len(found) > 1:
        raise RecordError(f"{path}: has the splits {', '.join(found)}; say which, e.g. {path}#{next(iter(found))}")
    return next(iter(found.values()))


def _why(error: Exception) -> str:
    said = str(error).partition("\n")[0]
    if isinstance(error, ConnectionError):
        return (
            f"the hub cannot be reached ({said}). Expected a connection, or a local copy: "
            "hf download --repo-type dataset ID --local-dir FOLDER elsewhere, then give the folder"
        )
    return f"cannot be loaded ({said})"
