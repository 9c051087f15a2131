"""Run folders: what a stage made, with a manifest of how; resumed by the same command, refused to another.

DIR/manifest.json    stage, settings, input hashes, versions, status, counts, cost
DIR/<name>.jsonl     rows, appended as they are finished
DIR/metrics.json     the stage's numbers, a list of `Metric`
"""

import fcntl
import json
import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from freeprm.errors import NonFiniteError, RecordError, RunFolderError
from freeprm.io.identity import content_hash, difference, plain, versions
from freeprm.io.jsonl import MANIFEST, Row, append_rows, read_rows, write_json, write_rows
from freeprm.types import Cost, Metric

LOCK = ".lock"
METRICS = "metrics.json"


class RunFolder:
    """A stage's output folder, held by one process from `with` to its end.

    A run that fails before it has made anything gives the folder up again, so that the mended command may differ.

    Args:
        path: the folder; made if need be.
        stage: the stage's name.
        settings: everything that decides the result. A folder made with other settings is refused.
        inputs: files or folders read; their contents are hashed, and a change is refused.

    Raises:
        RecordError: an input does not exist.
        RunFolderError: the folder holds another run or other files, is one of the inputs, or is in use.
    """

    def __init__(self, path: Path, *, stage: str, settings: Mapping[str, Any], inputs: Sequence[Path] = ()):
        if any(path.resolve() == item.resolve() for item in inputs):
            raise RunFolderError(f"{path}: is an input and the output at once; choose another --out")
        self.path = path
        self._identity = {
            "stage": stage,
            "settings": plain(settings),
            "inputs": {str(item): content_hash(item) for item in inputs},
        }
        self._started = time.perf_counter()
        self._lock: TextIO | None = None
        self.repaired: list[str] = []
        """Files whose torn last line was cut off when the folder was opened."""

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK).open("w")
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}); choose another --out") from error
        try:
            self._acquire(self._lock)
            self._claim()
        except BaseException:
            self._lock.close()
            raise
        if not self.complete:
            self._repair()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        with self._lock:  # closes it
            if self._holds_nothing():
                (self.path / MANIFEST).unlink(missing_ok=True)
            elif not self.complete:
                write_json(self.path / MANIFEST, {**self._manifest(), "seconds": self._seconds()})

    @property
    def complete(self) -> bool:
        """The stage has already finished here with the same settings and inputs."""
        return self._manifest().get("status") == "complete"

    def rows(self, name: str) -> list[Row]:
        """The rows written so far."""
        file = self.path / f"{name}.jsonl"
        if not file.exists():
            return []
        rows = []
        for _, row in read_rows(file):
            if isinstance(row, RecordError):
                raise row
            rows.append(row)
        return rows

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `<name>.jsonl`; they are on disk when this returns.

        Raises:
            NonFiniteError: a value is NaN or infinite; none of the rows is written.
        """
        with (self.path / f"{name}.jsonl").open("ab") as file:
            append_rows(file, rows)

    def rewrite(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write `<name>.jsonl` anew, whole or not at all."""
        write_rows(self.path / f"{name}.jsonl", rows)

    def write_metrics(self, metrics: Sequence[Metric]) -> None:
        """Write `metrics.json`.

        Raises:
            NonFiniteError: a metric is NaN or infinite; names it.
        """
        for metric in metrics:
            _check_finite(metric)
        write_json(self.path / METRICS, [asdict(metric) for metric in metrics])

    def finish(self, *, cost: Cost, counts: Mapping[str, Any]) -> Cost:
        """Mark the run complete, with what it cost and counted (skipped records too).

        Returns:
            The cost with the seconds since the folder was opened, and those of earlier sittings that were not killed.
        """
        timed = replace(cost, seconds=self._seconds())
        write_json(
            self.path / MANIFEST,
            {
                **self._identity,
                "status": "complete",
                "counts": dict(counts),
                "cost": asdict(timed),
                "versions": versions(),
            },
        )
        return timed

    def _manifest(self) -> dict[str, Any]:
        return read_manifest(self.path) or {}

    def _seconds(self) -> float:
        earlier: float = self._manifest().get("seconds", 0.0)
        return round(earlier + time.perf_counter() - self._started, 3)

    def _acquire(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: another process is writing here ({error.strerror}); wait for it or choose another --out"
            ) from error

    def _claim(self) -> None:
        existing = read_manifest(self.path)
        if existing is None:
            strangers = sorted(item.name for item in self.path.iterdir() if item.is_file() and not _is_ours(item))
            if strangers:
                raise RunFolderError(
                    f"{self.path} holds files that are not of a run of freeprm, e.g. {strangers[0]}; "
                    "choose an empty or new folder as --out"
                )
            write_json(self.path / MANIFEST, {**self._identity, "status": "running", "versions": versions()})
            return
        for key, ours in self._identity.items():
            if found := difference(key, existing.get(key), ours):
                raise RunFolderError(
                    f"{self.path} holds another run: {found}. Give the same command to resume it, or choose "
                    "another --out"
                )

    def _repair(self) -> None:
        for file in sorted(self.path.glob("*.jsonl")):
            if _cut_torn_line(file):
                self.repaired.append(file.name)
                warnings.warn(
                    f"{file}: the last row was cut off while it was written; it is left out and made again",
                    stacklevel=4,
                )

    def _holds_nothing(self) -> bool:
        return all(_is_ours(item) for item in self.path.rglob("*"))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A run folder's manifest, None where there is none.

    Raises:
        RunFolderError: it is not a manifest of freeprm.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(f"{folder / MANIFEST}: not valid JSON ({error}); choose another --out") from error
    if not isinstance(manifest, dict) or "stage" not in manifest:
        raise RunFolderError(f"{folder / MANIFEST}: not a manifest of freeprm; choose another --out")
    return manifest


def read_metrics(folder: Path) -> list[Metric]:
    """A run folder's metrics.

    Raises:
        RunFolderError: there are none.
    """
    try:
        text = (folder / METRICS).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder}: no {METRICS}; remove the folder and run the stage again") from error
    return [Metric(**row) for row in json.loads(text)]


def _is_ours(file: Path) -> bool:
    """What opening a folder leaves in it."""
    return file.name in (MANIFEST, LOCK, f"{MANIFEST}.partial")


def _cut_torn_line(file: Path) -> bool:
    """Cut a last line without its end; the rows before it stand."""
    with file.open("r+b") as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - (1 << 16))
            stream.seek(start)
            if (newline := stream.read(end - start).rfind(b"\n")) >= 0:
                end = start + newline + 1
                break
            end = start
        stream.truncate(end)
    return end < size


def _check_finite(metric: Metric) -> None:
    for name in ("value", "low", "high"):
        number = getattr(metric, name)
        if number is not None and not isfinite(number):
            named = ", ".join(str(part) for part in (metric.scorer, metric.selector, metric.group) if part is not None)
            raise NonFiniteError(
                f"metric {metric.metric}{f' ({named})' if named else ''}: {name} is {number}, over {metric.count}; "
                "expected a finite number, and no metric where there is nothing to measure"
            )
