"""Jobs in processes that last, each job when those that it needs are finished: two small models on two cores.

The processes are programs of their own, as those of `freeprm.engines.hf.workers` are, and end with their parent,
however that ends. Whatever a job or its libraries print goes to its log.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from freeprm.errors import FreePRMError, WorkerError
from freeprm.io.limited import cores
from freeprm.io.progress import bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process does at a time; it can be pickled."""

    name: str
    needs: frozenset[str]
    """Names of the jobs that must be finished before."""
    work: Callable[[], None]
    log: Path
    """Where what is printed goes, where the job has a process of its own."""


def run_jobs(jobs: Sequence[Job], *, workers: int, description: str) -> None:
    """Do all jobs, one after the other in this process, or several at a time in others.

    Args:
        jobs: each behind those that it needs.
        workers: processes; with 1 the work is done in this one.
        description: what the progress bar says is being done.

    Raises:
        WorkerError: a process failed or was lost.
        FreePRMError: what a job raises, with the job's name before its message.
    """
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            job.work()
        return
    left, done = chains_first(jobs), set[str]()
    n_workers = min(workers, len(jobs))
    with ExitStack() as stack:
        idle = [_Worker(max(1, cores() // n_workers), stack) for _ in range(n_workers)]
        advance = stack.enter_context(bar(description, len(jobs), unit="jobs"))
        busy: dict[Connection, tuple[_Worker, Job]] = {}
        while left or busy:
            for job in [job for job in left if job.needs <= done][: len(idle)]:
                worker = idle.pop()
                worker.give(job)
                left.remove(job)
                busy[worker.connection] = worker, job
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, job = busy.pop(connection)
                worker.receive(job)
                done.add(job.name)
                idle.append(worker)
                advance(1, note=f"{job.name} finished")


def chains_first(jobs: Sequence[Job]) -> list[Job]:
    """Those in the longest chains of needs first, so that the last one to be done is not one that had to wait.

    Args:
        jobs: each behind those that it needs.
    """
    before: dict[str, int] = {}
    for job in jobs:
        before[job.name] = max((before[need] + 1 for need in job.needs), default=0)
    after = dict.fromkeys(before, 0)
    for job in reversed(jobs):
        for need in job.needs:
            after[need] = max(after[need], after[job.name] + 1)
    return sorted(jobs, key=lambda job: -(before[job.name] + after[job.name]))


class _Worker:
    """The parent's side of one process, stopped when the stack is left."""

    def __init__(self, n_threads: int, stack: ExitStack):
        self.connection, theirs = Pipe()
        stack.callback(self.connection.close)
        command = [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
        # Its own session, so that an interrupt from the keyboard reaches the parent alone, which then stops it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True,
            env={"OMP_NUM_THREADS": str(n_threads), **os.environ},
        )  # fmt: skip
        stack.callback(self._stop)
        theirs.close()

    def give(self, job: Job) -> None:
        """Have the process do a job."""
        try:
            self.connection.send(job)
        except ConnectionError as error:
            raise self._lost(job) from error

    def receive(self, job: Job) -> None:
        """Take note that the job is finished."""
        try:
            failure: FreePRMError | None = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._lost(job) from error
        if failure is not None:
            raise failure

    def _lost(self, job: Job) -> WorkerError:
        code = self._process.wait()
        return WorkerError(
            f"{job.name}: its process ended with exit code {code}; a negative one is a signal, -9 mostly too little "
            f"memory. {job.log} may say more; the same command goes on, and with one worker it needs less memory"
        )

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def serve(fileno: int) -> None:
    """The worker's side: do jobs until the parent has no more."""
    connection = Connection(fileno)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path.append(os.getcwd())  # so that package.module:Name finds the user's own files, as in the parent
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return  # the parent is done with us
        connection.send(_failure(job))


def _failure(job: Job) -> FreePRMError | None:
    """Do a job; what went wrong with it."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        for standard in (1, 2):
            os.dup2(log.fileno(), standard)
    try:
        job.work()
    except FreePRMError as error:
        return type(error)(f"{job.name}: {error}")
    except Exception as error:  # whatever it was, the parent must hear of it
        return WorkerError(f"{job.name}: {type(error).__name__}: {error}. {job.log} may say more")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return None


def _end_with_parent() -> None:
    """Wait for the parent's end of standard input to close, and end this process."""
    sys.stdin.buffer.read()
    os._exit(1)
