"""Jobs that need each other, in processes that last: two small models on two cores.

The processes are programs of their own, as those of `freeprm.engines.hf.workers` are, and end with their parent,
however that ends. Whatever a job or its libraries print goes to its log.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from freeprm.errors import FreePRMError, WorkerError
from freeprm.io.progress import bar
from freeprm.io.sandbox import cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process does at a time; it can be pickled."""

    name: str
    needs: frozenset[str]
    """Names of the jobs that must be finished before."""
    work: Callable[[], None]
    log: Path
    """Where what is printed goes, where the job has a process of its own."""


class Plan:
    """What is left of some jobs, what is done, and what has failed.

    Args:
        jobs: in the order in which they are to begin, as far as their needs allow.
    """

    def __init__(self, jobs: Sequence[Job]):
        self._left = list(jobs)
        self._done: set[str] = set()
        self._failures: list[FreePRMError] = []

    def take(self, n: int) -> list[Job]:
        """At most `n` jobs that wait for nothing; they count as begun."""
        taken = [job for job in self._left if job.needs <= self._done][:n]
        self._left = [job for job in self._left if job not in taken]
        return taken

    def end(self, job: Job, failure: FreePRMError | None) -> None:
        """A job has ended."""
        if failure is None:
            self._done.add(job.name)
        else:
            self._failures.append(failure)

    def close(self) -> None:
        """Raise what failed, if anything did, with what is missing for want of it."""
        if not self._failures:
            return
        missing = ", ".join(job.name for job in self._left)
        text = "; ".join([*map(str, self._failures), *([f"not made for want of it: {missing}"] if missing else [])])
        raise type(self._failures[0])(f"{text}. All else is done ({len(self._done)} jobs), and stays so")


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


def attempt(job: Job) -> FreePRMError | None:
    """Do a job; what it could not do, with its name."""
    try:
        job.work()
    except FreePRMError as error:
        return type(error)(f"{job.name}: {error}")
    return None


def run_jobs(jobs: Sequence[Job], *, workers: int, description: str, ended: Callable[[], None] = lambda: None) -> None:
    """Do all jobs, one after the other in this process, or several at a time in others.

    One that fails stops none but those that need it; the failure is raised when the others are done.

    Args:
        jobs: each behind those that it needs.
        workers: processes; with 1 the work is done in this one.
        description: what the progress bar says is being done.
        ended: called whenever a job has ended.

    Raises:
        WorkerError: a process failed or was lost.
        FreePRMError: what the first job to fail raised, with the job's name before its message.
    """
    if workers == 1 or len(jobs) < 2:
        plan = Plan(jobs)
        while taken := plan.take(1):
            plan.end(taken[0], attempt(taken[0]))
            ended()
    else:
        plan = Plan(chains_first(jobs))
        _side_by_side(plan, n_jobs=len(jobs), n_workers=min(workers, len(jobs)), description=description, ended=ended)
    plan.close()


def _side_by_side(plan: Plan, *, n_jobs: int, n_workers: int, description: str, ended: Callable[[], None]) -> None:
    n_threads = max(1, cores() // n_workers)
    with ExitStack() as stack:
        idle = [_Worker(n_threads, stack) for _ in range(n_workers)]
        advance = stack.enter_context(bar(description, n_jobs, unit="jobs"))
        busy: dict[Connection, tuple[_Worker, Job]] = {}
        while True:
            for job in plan.take(len(idle)):
                worker = idle.pop()
                worker.give(job)
                busy[worker.connection] = worker, job
            if not busy:
                return
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, job = busy.pop(connection)
                failure = worker.receive(job)
                plan.end(job, failure)
                ended()
                idle.append(_Worker(n_threads, stack) if worker.is_lost else worker)
                advance(1, note=f"{job.name} finished" if failure is None else str(failure))


class _Worker:
    """The parent's side of one process, stopped when the stack is left."""

    def __init__(self, n_threads: int, stack: ExitStack):
        self.connection, theirs = Pipe()
        stack.callback(self.connection.close)
        command = [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
        self.is_lost = False
        """Its process has ended."""
        # Its own session, so that an interrupt from the keyboard reaches the parent alone, which then stops it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True,
            env={"OMP_NUM_THREADS": str(n_threads), **os.environ},
        )  # fmt: skip
        stack.callback(self._stop)
        theirs.close()

    def give(self, job: Job) -> None:
        """Have the process do a job; one that is gone is noticed when the answer is waited for."""
        with suppress(ConnectionError):
            self.connection.send(job)

    def receive(self, job: Job) -> FreePRMError | None:
        """What went wrong with the job, if anything."""
        try:
            failure: FreePRMError | None = self.connection.recv()
        except (EOFError, ConnectionError):
            self.is_lost = True
            return self._lost(job)
        return failure

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
        return attempt(job)
    except Exception as error:  # whatever it was, the parent must hear of it
        return WorkerError(f"{job.name}: {type(error).__name__}: {error}. {job.log} may say more")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _end_with_parent() -> None:
    """Wait for the parent's end of standard input to close, and end this process."""
    sys.stdin.buffer.read()
    os._exit(1)
