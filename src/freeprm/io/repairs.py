"""Rows files that survive crashes: rows are appended as a whole, and what a crash tore is cut off."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from freeprm.io.jsonl import append_rows

_BLOCK = 1 << 20


def append_whole(file: Path, rows: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
    """Append rows, forced to disk when this returns if `sync`; where the file system refuses, the file is as it was.

    Raises:
        NonFiniteError: a value is NaN or infinite.
        OSError: the disk is full, or fails.
    """
    rows = list(rows)
    before = file.stat().st_size if file.exists() else None
    try:
        with file.open("ab") as stream:
            append_rows(stream, rows, sync=sync)
    except OSError:
        with suppress(OSError):
            os.truncate(file, before or 0)
        raise
    if before is None:
        sync_path(file.parent)


def sync_path(path: Path) -> None:
    """Force the contents of a file, or the names of a folder's files, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cut_torn_rows(file: Path) -> bool:
    """Cut off a last row without its end, and whatever a lost server left as zero bytes; the rows before it stand.

    A file whose server lost power may have its new length without its new contents. What was forced to disk before
    is whole, so nothing behind the first zero byte was; and JSON holds none.

    Returns:
        True if anything was cut off.
    """
    with file.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        end = _line_end_before(stream, _first_zero(stream, size))
        if end < size:
            stream.truncate(end)
            os.fsync(stream.fileno())
    return end < size


def _first_zero(stream: BinaryIO, size: int) -> int:
    """The place of the first zero byte; the size, where there is none."""
    stream.seek(0)
    start = 0
    while block := stream.read(_BLOCK):
        if (found := block.find(b"\0")) >= 0:
            return start + found
        start += len(block)
    return size


def _line_end_before(stream: BinaryIO, stop: int) -> int:
    """The place behind the last line break before `stop`."""
    while stop > 0:
        start = max(0, stop - _BLOCK)
        stream.seek(start)
        if (newline := stream.read(stop - start).rfind(b"\n")) >= 0:
            return start + newline + 1
        stop = start
    return 0
