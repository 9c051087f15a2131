"""Processes that work for this one: they answer, they end with their parent, and one that is lost is noticed."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import chores
from freeprm.io.processes import Process


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    """The processes find their work by its module's name."""
    folders = [str(Path(chores.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_process_answers_has_its_threads_and_is_stopped_with_the_stack(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with ExitStack() as stack:
        process = Process(chores.echo, stack, n_threads=3)
        process.send("hello")
        pid, threads, said = process.receive()
        assert (threads, said) == ("3", "hello")
        assert pid != os.getpid()
    assert gone(pid)


def test_the_environment_says_how_many_threads_where_it_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with ExitStack() as stack:
        process = Process(chores.echo, stack, n_threads=3)
        process.send(None)
        assert process.receive()[1] == "2"


def test_one_that_has_ended_is_noticed_when_its_answer_is_waited_for():
    with ExitStack() as stack:
        process = Process(chores.leave, stack)
        with pytest.raises(EOFError):
            process.receive()
        process.send("too late")
        assert process.ending() == "exit code 3; a negative one is a signal, -9 mostly too little memory"


def test_processes_end_with_a_parent_that_is_killed():
    code = (
        "import chores, os, signal\nfrom contextlib import ExitStack\nfrom freeprm.io.processes import Process\n"
        "process = Process(chores.echo, ExitStack())\nprocess.send(1)\nprint(process.receive()[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -9
    assert gone(int(done.stdout))
