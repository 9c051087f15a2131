"""A folder held by one process for as long as it lives: the kernel lets go of it, however the process ends.

Two locks are taken: on the file `.lock`, which network file systems know too, and on the folder itself, which stands
if somebody deletes the file.
"""

import errno
import fcntl
import os
import platform
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from freeprm.errors import RunFolderError

LOCK = ".lock"
_NOT_FOR_FOLDERS = (errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOLCK, errno.EOPNOTSUPP)


class FolderLock:
    """An exclusive lock on a folder that exists; a process forked from this one does not keep it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._handles: list[int] = []

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunFolderError: somebody else has it; says who. Or the file system has no locks.
            OSError: the folder cannot be written.
        """
        try:
            self._handles.append(os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666))
            self._handles.append(os.open(self._folder, os.O_RDONLY))
            self._lock()
        except BaseException:
            self.release()
            raise
        _HELD.add(self)

    def release(self) -> None:
        """Let go of the lock, if held."""
        while self._handles:
            os.close(self._handles.pop())

    def _lock(self) -> None:
        file, folder = self._handles
        self._flock(file)
        try:
            self._flock(folder)
        except OSError as error:
            if error.errno not in _NOT_FOR_FOLDERS:
                raise
        with suppress(OSError):  # the name serves messages only
            os.truncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {platform.node()}".encode(), 0)

    def _flock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = (self._folder / LOCK).read_text(encoding="utf-8", errors="replace") or "unknown"
            raise RunFolderError(
                f"{self._folder}: another process is writing here ({holder}); wait for it or choose another --out"
            ) from error


_HELD: WeakSet[FolderLock] = WeakSet()


def _let_go() -> None:
    """In a forked process: it must not keep the folder locked when the one that took the lock is killed."""
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_let_go)
