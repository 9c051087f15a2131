"""Worker processes: their errors reach the caller, and they end when they are no longer wanted."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freeprm.engines.base import SamplingParams
from freeprm.engines.hf.decoding import Room, Wanted, decode
from freeprm.engines.hf.workers import DrawingJob, sample_in_workers
from freeprm.errors import ModelError
from freeprm.models.loading import LoadOptions, load_backbone
from patience import wait_until

GROUPS = [[Wanted(problem_id=str(index), prompt="ab", ids=(4, 5), sample_idxs=(0, 1))] for index in range(2000)]


def job(folder: Path, *, max_new_tokens: int = 30) -> DrawingJob:
    params = SamplingParams(temperature=1.0, max_new_tokens=max_new_tokens)
    return DrawingJob(
        model=str(folder), load=LoadOptions(), n_threads=1, params=params, room=Room(samples=4, tokens=40)
    )


def children() -> set[int]:
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    listed = subprocess.run(command, capture_output=True, text=True)
    return {int(line.split()[0]) for line in listed.stdout.splitlines() if "freeprm.engines.hf.workers" in line}


def test_workers_draw_what_one_process_draws_and_one_that_is_killed_is_reported_and_stops_them(
    save_tiny: Callable[..., Path],
):
    work = job(save_tiny())
    here = decode(load_backbone(work.model), GROUPS[:40], params=work.params, room=work.room)
    expected = {(one.problem_id, one.sample_idx): one for one in here}
    samples = sample_in_workers(work, GROUPS, n_workers=2)
    first = [next(samples) for _ in range(8)]
    for one in first:
        assert one == expected.get((one.problem_id, one.sample_idx), one)
    assert len({(one.problem_id, one.sample_idx) for one in first} & set(expected)) > 0
    workers = children()
    assert len(workers) == 2
    os.kill(workers.pop(), signal.SIGKILL)
    with pytest.raises(ModelError, match="exit code -9"):
        list(samples)
    assert not children()


def test_a_workers_error_reaches_the_caller(tmp_path: Path):
    with pytest.raises(ModelError, match=r"config\.json"):
        next(sample_in_workers(job(tmp_path), GROUPS, n_workers=1))
    assert not children()


@pytest.mark.slow
def test_leaving_early_stops_the_workers(save_tiny: Callable[..., Path]):
    samples = sample_in_workers(job(save_tiny()), GROUPS, n_workers=2)
    next(samples)
    assert len(children()) == 2
    samples.close()
    assert not children()


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(save_tiny: Callable[..., Path]):
    script = f"""
import os, sys
from pathlib import Path
sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}
from test_hf_workers import GROUPS, children, job
from freeprm.engines.hf.workers import sample_in_workers
samples = sample_in_workers(job(Path({str(save_tiny())!r})), GROUPS, n_workers=1)
next(samples)
print(*children(), flush=True)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    worker = int(parent.stdout)
    wait_until(lambda: not Path(f"/proc/{worker}").exists())
