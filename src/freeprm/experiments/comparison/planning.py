"""Jobs that need each other: which may begin, and what becomes of the rest when one fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from freeprm.errors import FreePRMError


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
