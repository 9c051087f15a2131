"""Calls that hang, eat memory or end their process cost their own result, and no process outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, PluginError, WorkerError
from freeprm.io.sandbox import CHUNK, Limits, Outcome, Pool
from hostile import HOSTILE, fail_to_prepare, make, make_none, make_nothing
from patience import PATIENCE, wait_until

SECONDS = 1.0
LATE = Outcome(None, f"took longer than {SECONDS:g} s")  # of any call, where the machine does other things meanwhile
SLOW = ("sleep", "a loop in C", "a power in C", "a child that stays")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(make, n_workers=2, limits=Limits(seconds=SECONDS, memory_mib=256))
    yield made
    made.close()


@pytest.fixture
def patient() -> Iterator[Pool]:
    """Waits so long that even on a loaded machine it is not the clock that ends a call."""
    made = Pool(make, n_workers=1, limits=Limits(seconds=60, memory_mib=256))
    yield made
    made.close()


def run(pool: Pool, tasks: list[Any]) -> list[Outcome]:
    outcomes = dict(pool.run(tasks))
    assert len(outcomes) == len(tasks)
    return [outcomes[index] for index in range(len(tasks))]


def test_every_task_has_its_result_whatever_the_order() -> None:
    pool = Pool(make, n_workers=2, limits=Limits(seconds=PATIENCE))
    assert run(pool, list(range(500))) == [Outcome(-number, None) for number in range(500)]
    assert run(pool, []) == []
    pool.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_call_costs_its_own_result_within_its_limit(pool: Pool, name: str) -> None:
    started = time.monotonic()
    tasks = [*range(CHUNK), name, *range(3 * CHUNK)]
    outcomes = run(pool, tasks)
    assert time.monotonic() - started < PATIENCE
    failed = outcomes.pop(CHUNK)
    assert failed.value is None
    assert failed.failure
    expected = [Outcome(-task, None) for task in tasks if task != name]
    assert all(outcome in (right, LATE) for outcome, right in zip(outcomes, expected, strict=True))
    assert sum(outcome == LATE for outcome in outcomes) < CHUNK  # of four times as many
    if name in SLOW:
        assert failed == LATE


def test_a_failure_says_why(patient: Pool) -> None:
    expected = {
        "memory": "needed more than 256 MiB of memory",
        "a crash": "its process ended with SIGSEGV",
        "an exit": "SystemExit: 3",
        "the end of its process": "its process ended with exit code 3",
        "an error": "ValueError: invalid literal for int() with base 10: 'x'",
        "what cannot be sent": "its result cannot be sent",
        "deep recursion": "RecursionError: maximum recursion depth exceeded",
    }
    for failure, outcome in zip(expected.values(), run(patient, list(expected)), strict=True):
        assert outcome.failure is not None
        assert outcome.failure.startswith(failure)


def test_hostile_calls_side_by_side_each_cost_one_limit(pool: Pool) -> None:
    started = time.monotonic()
    outcomes = run(pool, ["sleep", 1, "a loop in C", 2])
    assert time.monotonic() - started < PATIENCE
    assert outcomes[0] == outcomes[2] == LATE
    assert all(outcomes[place] in (Outcome(value, None), LATE) for place, value in ((1, -1), (3, -2)))


def test_a_caller_that_stops_leaves_no_process() -> None:
    others = children(os.getpid())
    pool = Pool(make, n_workers=2, limits=Limits(seconds=PATIENCE))
    outcomes = pool.run([1, *["sleep"] * 15])  # four at a time, so that who answers the first has more to do
    next(outcomes)
    group = children(os.getpid()) - others
    assert group
    outcomes.close()
    wait_until(lambda: not any(map(is_alive, group)))
    assert run(pool, [5]) == [Outcome(-5, None)]  # and the next run starts new ones
    pool.close()


SCRIPT = """
import sys, time
sys.path.insert(0, {folder!r})
from hostile import make
from freeprm.io.sandbox import Limits, Pool

pool = Pool(make, n_workers=2, limits=Limits(seconds=60))
for index, outcome in pool.run([1, "a loop in C", "sleep"]):
    print("ready", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent_however_it_ends(how: int) -> None:
    code = SCRIPT.format(folder=str(Path(__file__).parents[1]))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        group = children(parent.pid)
        assert len(group) == 3  # the fork server and two workers
        parent.send_signal(how)
    wait_until(lambda: not any(map(is_alive, group)))


def test_a_pool_whose_calls_cannot_be_made_says_why() -> None:
    limits = Limits(seconds=PATIENCE)
    with pytest.raises(PluginError, match="ValueError: no such weights"):
        list(Pool(make_nothing, n_workers=1, limits=limits).run([1]))
    with pytest.raises(WorkerError, match=r"not ready .* its process ended with exit code 7"):
        list(Pool(make_none, n_workers=1, limits=limits).run([1]))
    with pytest.raises(WorkerError, match="worker processes cannot be started"):
        list(Pool(make, prepare=fail_to_prepare, n_workers=1, limits=limits).run([1]))


def test_a_limit_of_nothing_is_refused() -> None:
    for limits in (partial(Limits, seconds=0), partial(Limits, memory_mib=0)):
        with pytest.raises(ConfigError, match="expected numbers above 0"):
            limits()


def children(pid: int) -> set[int]:
    """All processes that a process has started, and those that these have."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child, *children(child)}
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
