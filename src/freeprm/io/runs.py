"""Run folders: a stage's output with a manifest of how it was made; resumed by the same command, refused to another.

DIR/manifest.json    stage, settings, input hashes, versions, status, sessions, counts, cost, what the run chose itself
DIR/<name>.jsonl     rows, appended as they are finished
DIR/metrics.json     the stage's numbers, a list of `Metric`
DIR/parts.log        while it runs: a note for each finished part of the work

A process may be killed at any moment, and its disk may fill up: appended rows stay, and the same command resumes from
them.
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
"""Notes of finished parts; not .jsonl, so that nobody takes them for rows."""


class RunFolder:
    """A stage's output folder, locked by one process for the `with` block.

    A run that fails before it has made anything leaves the folder free, so that the corrected command may differ.
    Every method that writes raises RunFolderError if the disk is full or fails.

    Args:
        path: the folder; created if missing.
        stage: the stage's name.
        settings: everything that decides the result. A folder with other settings is refused.
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
        """Files whose torn last row was cut off when the folder was opened."""

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
        """The stage has finished here with the same settings and inputs."""
        return self._manifest().get("status") == "complete"

    def reopen(self) -> None:
        """Reopen a complete run to add to it; it is incomplete until it is finished again."""
        self._begin_session()

    def save_time(self) -> None:
        """Record this session's time so far, in case it is killed; appending rows does so by itself."""
        with suppress(OSError):
            self._save_seconds()

    def choice(self, name: str, choose: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """A choice that the run made for itself in its first session by calling `choose`; kept in the manifest."""
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
        """Append rows to `<name>.jsonl`; they survive a kill, and with `sync`, which takes milliseconds, a power loss.

        Raises:
            NonFiniteError: a value is NaN or infinite. As with a full disk, none of the rows is written.
        """
        self._append(self.path / f"{name}.jsonl", rows, sync=sync)

    def rewrite(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace `<name>.jsonl` atomically."""
        with self._writing():
            write_rows(self.path / f"{name}.jsonl", rows)
            sync_path(self.path)

    def log_part(self, part: Mapping[str, Any]) -> None:
        """Note a finished part of the work; kept until the run is complete."""
        self._append(self.path / PARTS, [part], sync=True)

    def parts(self) -> list[Row]:
        """The notes of the parts finished so far."""
        file = self.path / PARTS
        return [row for _, row in read_rows(file) if not isinstance(row, RecordError)] if file.exists() else []

    def write_metrics(self, metrics: Sequence[Metric]) -> None:
        """Write `metrics.json`; a NonFiniteError names a metric that is NaN or infinite."""
        for metric in metrics:
            check_metric(metric)
        with self._writing():
            write_json(self.path / METRICS, [asdict(metric) for metric in metrics])

    def finish(
        self, *, cost: Cost, counts: Mapping[str, Any], models: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
    ) -> Cost:  # fmt: skip
        """Mark the run complete.

        Args:
            cost: without its time.
            counts: of what was made, and of skipped records.
            models: paths or ids of the models used, by role; they lead from a result to all that it cost.
            defaults: by setting that was not given, the source of its value.

        Returns:
            The cost with the seconds of all sessions; see `manifest.SAVE_SECONDS` for killed ones.
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
            for file in (*filter(Path.is_file, self.path.iterdir()), self.path):
                sync_path(file)  # what a stage wrote by other means, such as weights, as well
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
        """Errors of the file system as RunFolderError."""
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
            others = sorted(item.name for item in self.path.iterdir() if item.is_file() and not _is_ours(item))
            if others:
                raise RunFolderError(
                    f"{self.path} holds files that are not of a run of freeprm, e.g. {others[0]}; "
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
        parts = [difference(key, existing.get(key), ours) for key, ours in self._identity.items()]
        return ", ".join(part for part in parts if part)

    def _repair(self) -> None:
        """Repair what a killed process, a full disk or a power loss left behind."""
        for file in (*self.path.glob("*.partial"), *self.path.glob(".tmp*")):  # ours, and those of safetensors
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
    """A run folder's manifest, or None; a RunFolderError if it is none of freeprm's."""
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
    """A run folder's metrics; a RunFolderError if there are none."""
    try:
        text = (folder / METRICS).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder}: no {METRICS}; remove the folder and run the stage again") from error
    return [Metric(**row) for row in json.loads(text)]


def _is_ours(file: Path) -> bool:
    """A file that opening a folder leaves in it."""
    return file.name in (MANIFEST, LOCK, f"{MANIFEST}.partial")


class FolderLock:
    """An exclusive lock on an existing folder, freed when its process ends in any way; not inherited by a fork.

    It is two locks: on the file `.lock`, which network file systems support too, and on the folder itself, in case
    somebody deletes the file.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = FileLock(folder / LOCK, blocking=False, thread_local=False, fallback_to_soft=False)
        self._handle: int | None = None
        """File descriptor of the folder."""

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunFolderError: another process has it; says which. Or the file system has no locks.
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
        with suppress(OSError):  # for messages only
            (self._folder / LOCK).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")

    def release(self) -> None:
        """Release the lock, if held."""
        self._file.release()
        self.release_folder()

    def release_folder(self) -> None:
        """Release the folder itself; so does a forked child, which would keep the lock of a killed parent."""
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


def _release_in_child() -> None:
    for lock in list(_HELD):
        lock.release_folder()


os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def behind(do: Callable[[Item], None]) -> Iterator[Callable[[Item], None]]:
    """A function that runs `do` on each item in a background thread, finished when the `with` block ends.

    Work that releases the interpreter gains by it: files, waiting for a GPU. Pure Python does not.

    At most one item is queued: a faster caller blocks. If `do` fails, nothing more is done, and its error is raised by
    the next call or at the block's end. An error or interrupt of the block itself is raised after the item under way.
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
