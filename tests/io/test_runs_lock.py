"""A folder's lock: one process has it, whatever becomes of its file; a child of a killed one does not keep it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from freeprm.errors import RunFolderError
from freeprm.io.runs import LOCK, FolderLock
from patience import wait_until


def test_a_second_one_is_refused_until_the_first_lets_go(tmp_path: Path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    with pytest.raises(RunFolderError, match=rf"another process is writing here \(process {os.getpid()} on "):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()  # nothing is held any more


def test_a_lost_lock_file_lets_nobody_in(tmp_path: Path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    (tmp_path / LOCK).unlink()
    with pytest.raises(RunFolderError, match="another process is writing here"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_file_that_a_killed_process_left_is_no_lock(tmp_path: Path):
    (tmp_path / LOCK).write_text("process 1 on elsewhere", encoding="utf-8")
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert (tmp_path / LOCK).read_text(encoding="utf-8").startswith(f"process {os.getpid()} on ")
    lock.release()


FORKS = """
import os, sys, time
from pathlib import Path
from freeprm.io.runs import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


def is_free(lock: FolderLock) -> bool:
    """Take a lock if it can be had."""
    try:
        lock.acquire()
    except RunFolderError:
        return False
    return True


def test_a_forked_child_that_outlives_its_killed_parent_does_not_keep_the_lock(tmp_path: Path):
    command = [sys.executable, "-c", FORKS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        lock = FolderLock(tmp_path)
        with pytest.raises(RunFolderError):
            lock.acquire()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        try:
            wait_until(lambda: is_free(lock))  # the child may not have run yet since it was forked
        finally:
            os.kill(child, signal.SIGKILL)
    lock.release()
