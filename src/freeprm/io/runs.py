"""Run folders: what a stage made, with a manifest of how; resumed by the same command, refused to another.

DIR/manifest.json    stage, settings, input hashes, versions, status, sessions, counts, cost, what the run chose itself
DIR/<name>.jsonl     rows, appended as they are finished
DIR/metrics.json     the stage's numbers, a list of `Metric`
DIR/parts.log        while it runs: what the stage notes of each finished part of its work

A process may be killed at any moment, and its disk may fill up: rows that were appended stay, and the same command
goes on from them.
"""

import errno
import fcntl
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

from filelock import FileLock, Timeout

from freeprm.errors import RecordError, RunFolderError
from freeprm.io.files import MANIFEST, content_hash, read_rows
from freeprm.io.manifest import (
    Session,
    Stopwatch,
    check_metric,
    difference,
    plain,
    timed,
    total_seconds,
    versions,
)
from freeprm.io.rows import Row, append_rows, cut_torn_rows, sync_path, write_json, write_rows
from freeprm.types import Cost, Metric

Item = TypeVar("Item")
LOCK = ".lock"
METRICS = "metrics.json"
PARTS = "parts.log"
"""Of finished parts; not .jsonl, so that nobody takes it for rows."""


class RunFolder:
    """A stage's output folder, held by one process from `with` to its end.

    A run that fails before it has made anything gives the folder up again, so that the mended command may differ.
    Whatever writes to it raises RunFolderError where the disk is full, or fails.

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
        self._lock = FolderLock(path)
        self._watch = Stopwatch()
        self.repaired: list[str] = []
        """Files whose torn last line was cut off when the folder was opened."""

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}); choose another --out") from error
        try:
            with self._writing():
                self._claim()
                if not self.complete:
                    self._repair()
                    self._begin_session()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # A full disk must not hide the error that ends the run, nor undo one that has finished.
            with suppress(OSError):
                if self._holds_nothing():
                    (self.path / MANIFEST).unlink(missing_ok=True)
                elif not self.complete:
                    self._save_seconds()
        finally:
            self._lock.release()

    @property
    def complete(self) -> bool:
        """The stage has already finished here with the same settings and inputs."""
        return self._manifest().get("status") == "complete"

    def reopen(self) -> None:
        """Go on with a run that was complete, to add to it: it is not, until it is finished again."""
        self._begin_session()

    def save_time(self) -> None:
        """Write down how long this session has taken, in case it is killed; appending rows does so by itself."""
        with suppress(OSError):
            self._save_seconds()

    def choice(self, name: str, choose: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """What the run chose for itself when it began: chosen now, and kept in the manifest, or read from there.

        Args:
            name: of what is chosen.
            choose: called in a run's first session only.
        """
        made: dict[str, Any] = self._manifest().get("choices", {})
        if name not in made:
            made = {**made, name: plain(choose())}
            with self._writing():
                write_json(self.path / MANIFEST, {**self._manifest(), "choices": made})
                sync_path(self.path)
        found: Mapping[str, Any] = made[name]
        return found

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

    def append(self, name: str, rows: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
        """Append rows to `<name>.jsonl`: from now on no kill loses them, and with `sync` no lost power either.

        Args:
            name: of the file.
            rows: what to append.
            sync: force this file to disk, with all that was appended to it before; takes some milliseconds.

        Raises:
            NonFiniteError: a value is NaN or infinite. As where the disk is full, none of the rows is written.
        """
        self._append(self.path / f"{name}.jsonl", rows, sync=sync)

    def rewrite(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write `<name>.jsonl` anew, whole or not at all."""
        with self._writing():
            write_rows(self.path / f"{name}.jsonl", rows)
            sync_path(self.path)

    def log_part(self, part: Mapping[str, Any]) -> None:
        """Note that a part of the work is finished, and what it took; kept until the run is complete."""
        self._append(self.path / PARTS, [part], sync=True)

    def parts(self) -> list[Row]:
        """What was noted of the parts finished so far."""
        file = self.path / PARTS
        return [row for _, row in read_rows(file) if not isinstance(row, RecordError)] if file.exists() else []

    def write_metrics(self, metrics: Sequence[Metric]) -> None:
        """Write `metrics.json`.

        Raises:
            NonFiniteError: a metric is NaN or infinite; names it.
        """
        for metric in metrics:
            check_metric(metric)
        with self._writing():
            write_json(self.path / METRICS, [asdict(metric) for metric in metrics])

    def finish(
        self, *, cost: Cost, counts: Mapping[str, Any], models: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
    ) -> Cost:  # fmt: skip
        """Mark the run complete, with what it cost and counted (skipped records too).

        Args:
            cost: without its time.
            counts: by what was counted.
            models: where the models were that it took, by role: the way from a result to all that it cost.
            defaults: where the values of settings come from that nobody gave, by the setting's name.

        Returns:
            The cost with the seconds of all sessions; see `manifest.SAVE_SECONDS` for those that were killed.
        """
        sessions = self._sessions()
        whole = timed(cost, total_seconds(sessions))
        choices = self._manifest().get("choices")
        manifest = {
            **self._identity, "status": "complete", "models": dict(models or {}), "counts": dict(counts),
            "cost": asdict(whole), "sessions": sessions, "versions": versions(),
            **({"defaults": dict(defaults)} if defaults else {}),
            **({"choices": choices} if choices else {}),
        }  # fmt: skip
        with self._writing():
            for file in self.path.glob("*.jsonl"):
                sync_path(file)
            write_json(self.path / MANIFEST, manifest)
            (self.path / PARTS).unlink(missing_ok=True)
        return whole

    def _manifest(self) -> dict[str, Any]:
        return read_manifest(self.path) or {}

    def _append(self, file: Path, rows: Iterable[Mapping[str, Any]], *, sync: bool) -> None:
        with self._writing():
            append_rows(file, rows, sync=sync)
        if self._watch.is_due():
            self.save_time()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the file system refuses, as our error."""
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be written ({error.strerror}). What was finished before is kept; make room, and "
                "give the same command again to go on"
            ) from error

    def _begin_session(self) -> None:
        manifest = self._manifest()
        sessions = self._watch.begin(manifest.get("sessions", ()), repaired=self.repaired)
        write_json(self.path / MANIFEST, {**manifest, "status": "running", "sessions": sessions})
        sync_path(self.path)

    def _sessions(self) -> list[Session]:
        return self._watch.read(self._manifest()["sessions"])

    def _save_seconds(self) -> None:
        write_json(self.path / MANIFEST, {**self._manifest(), "sessions": self._sessions()})

    def _claim(self) -> None:
        existing = read_manifest(self.path)
        if existing is None:
            strangers = sorted(item.name for item in self.path.iterdir() if item.is_file() and not _is_ours(item))
            if strangers:
                raise RunFolderError(
                    f"{self.path} holds files that are not of a run of freeprm, e.g. {strangers[0]}; "
                    "choose an empty or new folder as --out"
                )
        found = "" if existing is None else self._difference(existing)
        if found and not self._holds_nothing():
            raise RunFolderError(
                f"{self.path} holds another run: {found}. Give the same command to resume it, or choose another --out"
            )
        if existing is None or found:  # a run that was killed before it made anything does not count
            write_json(self.path / MANIFEST, {**self._identity, "status": "running", "versions": versions()})

    def _difference(self, existing: Mapping[str, Any]) -> str:
        parts = (difference(key, existing.get(key), ours) for key, ours in self._identity.items())
        return next((part for part in parts if part), "")

    def _repair(self) -> None:
        """Mend what a killed process, a full disk or a lost server left behind."""
        for file in self.path.glob("*.json*.partial"):
            file.unlink()
        for file in sorted(self.path.glob("*.jsonl")):
            if cut_torn_rows(file):
                self.repaired.append(file.name)
                warnings.warn(
                    f"{file}: the last row was cut off while it was written; it is left out and made again",
                    stacklevel=4,
                )
        if (self.path / PARTS).exists():
            cut_torn_rows(self.path / PARTS)

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


class FolderLock:
    """An exclusive lock on a folder that exists, until its process ends, however that ends; a forked child lacks it.

    Two locks are taken: on the file `.lock`, which network file systems know too, and on the folder itself, which
    stands if somebody deletes the file.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = FileLock(folder / LOCK, blocking=False, thread_local=False, fallback_to_soft=False)
        self._handle: int | None = None
        """The folder's."""

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunFolderError: somebody else has it; says who. Or the file system has no locks.
            OSError: the folder cannot be written.
        """
        try:
            self._file.acquire()
            self._lock_folder()
        except (Timeout, BlockingIOError) as error:
            self.release()
            holder = (self._folder / LOCK).read_text(encoding="utf-8", errors="replace") or "unknown"
            raise RunFolderError(
                f"{self._folder}: another process is writing here ({holder}); wait for it or choose another --out"
            ) from error
        except BaseException:
            self.release()
            raise
        _HELD.add(self)
        with suppress(OSError):  # the name serves messages only
            (self._folder / LOCK).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")

    def release(self) -> None:
        """Let go of the lock, if held."""
        self._file.release()
        self.release_folder()

    def release_folder(self) -> None:
        """Let go of the folder itself; a forked child does so, too, as it would keep the lock of a killed parent."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _lock_folder(self) -> None:
        self._handle = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NOT_FOR_FOLDERS:
                raise


_NOT_FOR_FOLDERS = (errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOLCK, errno.EOPNOTSUPP)
_HELD: WeakSet[FolderLock] = WeakSet()


def _let_go() -> None:
    for lock in list(_HELD):
        lock.release_folder()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def behind(do: Callable[[Item], None]) -> Iterator[Callable[[Item], None]]:
    """Gives what does something with each item in turn, in a thread, while the caller goes on; done at the block's end.

    What lets go of the interpreter gains by it: files, the wait for a GPU. Pure Python does not.

    One item waits at most: a caller that is faster is held up. Where `do` fails, nothing more is done, and its error is
    raised by the next call or at the block's end. An error, or an interrupt, of the block itself comes out when what
    was begun is done.
    """
    pending: list[Future[None]] = []

    def give(item: Item) -> None:
        if pending:
            pending.pop().result()
        pending.append(pool.submit(do, item))

    with ThreadPoolExecutor(1) as pool:
        yield give
        if pending:
            pending.pop().result()
