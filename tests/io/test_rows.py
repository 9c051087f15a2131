"""Rows are appended as a whole or not at all, and what a crash tore is cut off, and no more than that."""

import errno
import os
from pathlib import Path

import pytest

from freeprm.errors import NonFiniteError
from freeprm.io import rows as rows_module
from freeprm.io.rows import append_rows, cut_torn_rows

LINES = b'{"x": 1}\n{"x": 2}\n'


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (b"", LINES),
        (b'{"x": 3', LINES),
        (b'{"x": "' + b"long" * 1000, LINES),  # more than a block, of 64 bytes here
        (b"\0" * 300, LINES),  # as a lost server leaves a file whose length was written before its contents
        (b'{"x": 3}\n' + b"\0" * 80 + b'4}\n{"x": 5}\n', LINES + b'{"x": 3}\n'),
        (b'{"x": \0\0}\n{"x": 5}\n', LINES),
    ],
)
def test_rows_before_the_torn_one_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: bytes, kept: bytes):
    monkeypatch.setattr(rows_module, "_BLOCK", 64)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(LINES + tail)
    assert cut_torn_rows(file) == (LINES + tail != kept)
    assert file.read_bytes() == kept
    assert not cut_torn_rows(file)


def test_a_file_without_a_whole_row_becomes_empty(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"x"')
    assert cut_torn_rows(file)
    assert file.read_bytes() == b""


def test_rows_that_the_disk_refuses_leave_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "rows.jsonl"
    append_rows(file, [{"x": 1}, {"x": 2}])
    assert file.read_bytes() == LINES

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            append_rows(file, [{"x": 3}])
        with pytest.raises(OSError, match="No space left"):
            append_rows(tmp_path / "new.jsonl", [{"x": 3}])
    assert file.read_bytes() == LINES
    assert (tmp_path / "new.jsonl").read_bytes() == b""
    with pytest.raises(NonFiniteError):
        append_rows(file, [{"x": 3}, {"x": float("nan")}])
    assert file.read_bytes() == LINES
