"""A row of a file whatever its container, where it stood, and files written whole."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeprm.errors import RecordError

Row = dict[str, Any]


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
