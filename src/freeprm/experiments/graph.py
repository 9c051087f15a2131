"""The run graph: an experiment is a list of runs, each a stage with its settings, in a folder of its own.

    runs = [
        PlannedRun(folder=out / "rollouts", stage=partial(sample, "arithmetic", model="solver:base"), alone=True),
        PlannedRun(folder=out / "graded", stage=grade, inputs=(out / "rollouts",)),
    ]
    make_runs(runs, out=out, workers=2, description="demo")

A run begins when the runs that it depends on are finished. Every stage resumes from its own folder, so the same list
resumes where it was interrupted, and finished runs are kept.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from graphlib import TopologicalSorter
from multiprocessing.connection import Connection, wait
from pathlib import Path

from freeprm.errors import FreePRMError, WorkerError
from freeprm.io.processes import Process
from freeprm.io.progress import bar, tell
from freeprm.io.runs import read_manifest
from freeprm.io.sandbox import cores

SHOWN = 8
"""Maximum of runs named in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run of an experiment; picklable, unless it is made in this process."""

    folder: Path
    """Its run folder, which other runs refer to."""
    stage: Callable[..., object]
    """Called with the inputs, if any, and `out`: a stage with its settings, by `functools.partial`."""
    inputs: tuple[Path, ...] = ()
    """Files and folders, of other runs of the list or existing."""
    needs: tuple[Path, ...] = ()
    """Folders of other runs in its settings: models, thresholds."""
    alone: bool = False
    """It starts its own processes or threads: made in this process, before the parallel runs."""
    log: str = ""
    """Name of the log in `out/logs` for the output of its process; by default from the folder."""


def make_runs(
    runs: Sequence[PlannedRun],
    *,
    out: Path,
    workers: int = 1,
    description: str,
    ended: Callable[[], None] = lambda: None,
) -> None:
    """Make all runs, one after the other in this process, or several at a time in others.

    A failed run stops only those that need it; the failure is raised when the others are done.

    Args:
        runs: in any order; in a single process, the first that may begin is made first.
        out: the experiment's folder; messages and logs name runs by their folders below it.
        workers: processes; with 1 everything is done in this one.
        description: of the experiment, for progress.
        ended: called whenever a run has ended.

    Raises:
        WorkerError: a process failed or was lost.
        FreePRMError: that of the first failed run, with the names of runs that failed in the same way.
    """
    graph = _Graph(runs, out, ended)
    in_this_process = workers == 1 or len(runs) < 2
    while taken := graph.take(1, among=lambda run: run.alone or in_this_process):
        if not graph.was_made(taken[0]):
            tell(f"{description}: {graph.name(taken[0])}; {graph.progress()}")
        graph.end(taken[0], _attempt(taken[0]))
    if graph.can_go_on:
        _side_by_side(graph, n_workers=min(workers, graph.n_left), description=description)
    graph.close()


def chain_lengths(needs: dict[Path, set[Path]]) -> dict[Path, int]:
    """For each run, the number of other runs in the longest chain of needs through it."""
    order = list(TopologicalSorter(needs).static_order())
    before, after = dict.fromkeys(order, 0), dict.fromkeys(order, 0)
    for run in order:
        before[run] = max((before[need] + 1 for need in needs[run]), default=0)
    for run in reversed(order):
        for need in needs[run]:
            after[need] = max(after[need], after[run] + 1)
    return {run: before[run] + after[run] for run in order}


class _Graph:
    """The state of the runs: waiting, ready, done, failed."""

    def __init__(self, runs: Sequence[PlannedRun], out: Path, ended: Callable[[], None]):
        self._out, self._ended = out, ended
        self._runs: dict[Path, PlannedRun] = {}
        for run in runs:
            same = self._runs.setdefault(run.folder, run)
            assert _settings(same) == _settings(run), f"{run.folder}: two runs of one folder"
        needs = {run.folder: {*run.inputs, *run.needs} & self._runs.keys() for run in self._runs.values()}
        self._chains = chain_lengths(needs)
        self._sorter = TopologicalSorter(needs)
        self._sorter.prepare()
        self._waiting = dict(self._runs)
        self._ready: list[PlannedRun] = []
        self._done: list[PlannedRun] = []
        self._failures: dict[str, tuple[FreePRMError, list[str]]] = {}
        self._clock = _Clock(self._runs.values())

    @property
    def n_left(self) -> int:
        """Runs that have not begun."""
        return len(self._waiting)

    @property
    def can_go_on(self) -> bool:
        """Whether some run is ready."""
        return bool(self._ready)

    def was_made(self, run: PlannedRun) -> bool:
        """Whether it was finished before."""
        return run not in self._clock.todo

    def name(self, run: PlannedRun) -> str:
        """Its name in messages."""
        return run.folder.relative_to(self._out).as_posix() if run.folder.is_relative_to(self._out) else str(run.folder)

    def log(self, run: PlannedRun) -> Path:
        """The log of its output."""
        return self._out / "logs" / f"{run.log or self.name(run).replace('/', '-')}.log"

    def progress(self, n_workers: int = 1) -> str:
        """`3 of 14 runs made, about 0:02:10 left`."""
        left = self._clock.left(n_workers)
        return f"{len(self._done)} of {len(self._runs)} runs made{f', about {left} left' if left else ''}"

    def take(
        self, n: int, *, among: Callable[[PlannedRun], bool] = lambda run: True, chains_first: bool = False
    ) -> list[PlannedRun]:
        """At most `n` runs that wait for nothing; they count as begun."""
        self._ready += [self._runs[folder] for folder in self._sorter.get_ready()]
        order = list(self._runs)
        self._ready.sort(key=lambda run: (-self._chains[run.folder] if chains_first else 0, order.index(run.folder)))
        taken = list(filter(among, self._ready))[:n]
        for run in taken:
            self._ready.remove(run)
            del self._waiting[run.folder]
            self._clock.begin(run)
        return taken

    def end(self, run: PlannedRun, failure: FreePRMError | None) -> None:
        """Note the end of a run."""
        self._clock.end(run)
        if failure is None:
            self._done.append(run)
            self._sorter.done(run.folder)
        else:
            self._failures.setdefault(str(failure), (failure, []))[1].append(self.name(run))
        self._ended()

    def close(self) -> None:
        """Raise the first failure, if any, with all failures and the runs that were not made."""
        if not self._failures:
            return
        parts = [f"{', '.join(names)}: {text}" for text, (_, names) in self._failures.items()]
        if missing := [self.name(run) for run in self._waiting.values()]:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            parts.append(f"not made for want of it: {', '.join(missing[:SHOWN])}{more}")
        first, _ = next(iter(self._failures.values()))
        raise type(first)(f"{'; '.join(parts)}. All else is done ({len(self._done)} runs), and stays so") from first


class _Clock:
    """Estimates the time that is left: each run takes the mean time of its stage."""

    def __init__(self, runs: Iterable[PlannedRun]):
        # Runs that were finished before take no time, and would bias the means.
        self.todo = [run for run in runs if (read_manifest(run.folder) or {}).get("status") != "complete"]
        self._begun: dict[Path, float] = {}
        self._took: dict[str, list[float]] = {}

    def begin(self, run: PlannedRun) -> None:
        self._begun[run.folder] = time.monotonic()

    def end(self, run: PlannedRun) -> None:
        if run in self.todo:
            self.todo.remove(run)
            self._took.setdefault(_stage_name(run), []).append(time.monotonic() - self._begun[run.folder])

    def left(self, n_workers: int) -> timedelta | None:
        """None while nothing is known, or if nothing is left."""
        every = [seconds for took in self._took.values() for seconds in took]
        if not every or not self.todo:
            return None
        times = [self._took.get(_stage_name(run), every) for run in self.todo]
        return timedelta(seconds=round(sum(sum(took) / len(took) for took in times) / n_workers))


def _side_by_side(graph: _Graph, *, n_workers: int, description: str) -> None:
    n_threads = max(1, cores() // n_workers)
    with ExitStack() as stack:
        idle = [Process(_serve, stack, n_threads=n_threads) for _ in range(n_workers)]
        advance = stack.enter_context(bar(description, graph.n_left, unit="runs"))
        busy: dict[Connection, tuple[Process, PlannedRun]] = {}
        while True:
            for run in graph.take(len(idle), chains_first=True):
                process = idle.pop()
                process.send((run, graph.log(run)))
                busy[process.connection] = process, run
            if not busy:
                return
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                process, run = busy.pop(connection)
                try:
                    failure = process.receive()
                except EOFError:
                    failure = WorkerError(
                        f"its process ended with {process.ending()}. {graph.log(run)} may say more; the same command "
                        "goes on, and with one worker it needs less memory"
                    )
                    process = Process(_serve, stack, n_threads=n_threads)
                idle.append(process)
                graph.end(run, failure)
                note = f"{graph.name(run)} {'finished' if failure is None else f'failed: {failure}'}"
                advance(1, note=f"{note}; {graph.progress(n_workers)}")


def _serve(connection: Connection) -> None:
    """A worker's side: make runs until the parent has no more."""
    sys.path.append(os.getcwd())  # so that package.module:Name finds the user's own files, as in the parent
    while True:
        try:
            run, log = connection.recv()
        except EOFError:
            return  # the parent has stopped
        connection.send(_logged(run, log))


def _logged(run: PlannedRun, log: Path) -> FreePRMError | None:
    """Make a run with its output in its log; returns its failure."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    try:
        failure = _attempt(run)
        return failure and type(failure)(str(failure))  # without attributes that may not be picklable
    except Exception as error:  # whatever it was, the parent must know
        return WorkerError(f"{type(error).__name__}: {error}. {log} may say more")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _attempt(run: PlannedRun) -> FreePRMError | None:
    """Make a run; returns its failure."""
    try:
        run.stage(*([list(run.inputs)] if run.inputs else []), out=run.folder)
    except FreePRMError as error:
        return error
    return None


def _settings(run: PlannedRun) -> tuple[object, ...]:
    """The definition of a run, for comparison, since partial functions do not compare equal."""
    stage = run.stage
    called = (stage.func, stage.args, stage.keywords) if isinstance(stage, partial) else (stage, (), {})
    return *called, run.inputs


def _stage_name(run: PlannedRun) -> str:
    return str(getattr(run.stage.func if isinstance(run.stage, partial) else run.stage, "__name__", run.stage))
