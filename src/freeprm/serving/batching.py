"""Scoring for many callers at once: what waits is scored together, by the one thread that has the model.

No request waits for company. While the model works on a batch others arrive, and become the next one; so batches are
small when little is asked and large when much is. Responses to equal prompts stand together in a batch, whichever
requests they came with, and share their beginning as in `freeprm score`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil
from typing import Literal, NamedTuple

from freeprm.errors import FreePRMError
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import DEFAULT_SCORING, Scorer, Scores, ScoringOptions, rollouts_of
from freeprm.types import Rollout

State = Literal["loading", "ready", "draining", "failed"]
_TRIED = ("What is 1 + 1?", "1 + 1 = 2.")


class BusyError(Exception):
    """Too much waits already."""

    def __init__(self, seconds: int):
        super().__init__(f"too much waits already; try again in {seconds} s")
        self.seconds = seconds
        """After which the queue has probably room."""


class NotReadyError(Exception):
    """The model is not loaded yet, could not be loaded, or the server ends."""


class Batch(NamedTuple):
    """One batch that was scored."""

    n_requests: int
    n_responses: int
    tokens: int
    """Read by all models."""
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    rollouts: Sequence[Rollout]
    options: ScoringOptions
    result: "Future[list[Scores | None]]" = field(default_factory=Future)


class Batcher:
    """Owns a scorer, in a thread of its own.

    Args:
        load: called in the thread.
        max_batch: responses scored together. A request with more is a batch of its own.
        max_waiting: responses that may wait, those being scored included. A request that finds nobody waiting is
            always taken.
        scored: called after each batch, in the thread.
    """

    def __init__(
        self,
        load: Callable[[], Scorer],
        *,
        max_batch: int,
        max_waiting: int,
        scored: Callable[[Batch], None] = lambda batch: None,
    ):
        self._load, self._max_batch, self._max_waiting, self._scored = load, max_batch, max_waiting, scored
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._n_waiting, self._rate = 0, 0.0
        self._scorer: Scorer | None = None
        self.state: State = "loading"
        self.error: BaseException | None = None
        """Why the model could not be loaded."""
        self._thread = threading.Thread(target=self._run, name="freeprm-scorer", daemon=True)
        self._thread.start()

    @property
    def scorer(self) -> Scorer:
        """The loaded scorer.

        Raises:
            NotReadyError: there is none, or no more.
        """
        if self.state != "ready" or self._scorer is None:
            said = {
                "loading": "is being loaded",
                "draining": "is ending",
                "failed": f"could not be loaded: {self.error}",
            }
            raise NotReadyError(f"the model {said.get(self.state, self.state)}")
        return self._scorer

    @property
    def n_waiting(self) -> int:
        """Responses that wait or are being scored."""
        return self._n_waiting

    def submit(self, rollouts: Sequence[Rollout], options: ScoringOptions) -> "Future[list[Scores | None]]":
        """Have responses scored.

        Returns:
            Scores in the order given; None of a response that `options.too_long` leaves out, or an empty one. Or the
            FreePRMError of the first one that cannot be scored. It may be cancelled until scoring begins.

        Raises:
            BusyError: too much waits.
            NotReadyError: see `scorer`.
        """
        with self._changed:
            _ = self.scorer
            if self._n_waiting and self._n_waiting + len(rollouts) > self._max_waiting:
                raise BusyError(max(1, ceil(self._n_waiting / self._rate)) if self._rate else 1)
            job = _Job(rollouts, options)
            self._jobs.append(job)
            self._n_waiting += len(rollouts)
            self._changed.notify()
        return job.result

    def wait_until_loaded(self) -> None:
        """Wait for the model; raises what loading it raised."""
        with self._changed:
            self._changed.wait_for(lambda: self.state != "loading")
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Score what was taken, take nothing more, and end the thread."""
        with self._changed:
            if self.state in ("loading", "ready"):
                self.state = "draining"
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            scorer = self._load()
            scorer.score_rollouts(rollouts_of(_TRIED[0], [_TRIED[1]]), DEFAULT_SCORING)
        except BaseException as error:  # told to whoever waits for the model
            with self._changed:
                self.state, self.error = "failed", error
                self._changed.notify_all()
            return
        with self._changed:
            self._scorer = scorer
            if self.state == "loading":
                self.state = "ready"
            self._changed.notify_all()
        while jobs := self._next():
            self._score(scorer, jobs)
            with self._changed:
                self._n_waiting -= sum(len(job.rollouts) for job in jobs)

    def _next(self) -> list[_Job]:
        """The jobs of the next batch, all with the options of the oldest one; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self.state != "ready")
            taken: list[_Job] = []
            n_taken, rest = 0, deque[_Job]()
            for job in self._jobs:
                fits = not taken or (job.options == taken[0].options and n_taken + len(job.rollouts) <= self._max_batch)
                if fits:
                    taken.append(job)
                    n_taken += len(job.rollouts)
                else:
                    rest.append(job)
            self._jobs = rest
            return taken

    def _score(self, scorer: Scorer, jobs: Sequence[_Job]) -> None:
        """Score a batch and tell whoever waits."""
        started = time.perf_counter()
        usage = Usage()
        asked = [job for job in jobs if job.result.set_running_or_notify_cancel()]
        if not asked:
            return
        _score_each(scorer, asked, usage)
        seconds, n_responses = time.perf_counter() - started, sum(len(job.rollouts) for job in asked)
        rate = n_responses / seconds
        self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
        self._scored(Batch(len(asked), n_responses, usage.tokens, seconds))


def _score_each(scorer: Scorer, jobs: Sequence[_Job], usage: Usage) -> None:
    """Score jobs together; where one of them cannot be scored, in halves, so that only that one fails."""
    places = [(job, index) for job in jobs for index in range(len(job.rollouts))]
    order: dict[str, int] = {}
    places.sort(key=lambda place: order.setdefault(repr(place[0].rollouts[place[1]].prompt), len(order)))
    try:
        found, _ = scorer.score_rollouts([job.rollouts[index] for job, index in places], jobs[0].options, usage=usage)
    except FreePRMError as error:
        if len(jobs) == 1:
            jobs[0].result.set_exception(error)
            return
        middle = len(jobs) // 2
        _score_each(scorer, jobs[:middle], usage)
        _score_each(scorer, jobs[middle:], usage)
        return
    except Exception as error:  # a fault of ours or of the machine: these requests fail, and the server goes on
        for job in jobs:
            job.result.set_exception(error)
        return
    results: dict[_Job, list[Scores | None]] = {job: [None] * len(job.rollouts) for job in jobs}
    for place, (job, index) in enumerate(places):
        results[job][index] = found.get(place)
    for job, scores in results.items():
        job.result.set_result(scores)
