"""Calls in worker processes, each with a hard limit on its time and memory.

A call that hangs, even in C, or that eats memory, costs only its own result: the parent kills its process, starts
another and goes on with the rest. `sandbox_worker.py` is what runs in the processes.
"""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NamedTuple

from freeprm.errors import ConfigError, PluginError, WorkerError
from freeprm.io.sandbox_worker import DONE, END, FORK, ORDER, Setup, serve

CHUNK = 32
"""Tasks sent to a worker at once; fewer towards the end, so that all workers end together."""
START_SECONDS = 120.0
"""Time limit before a worker's first task, e.g. for imports of a plug-in."""


class Outcome(NamedTuple):
    """The result of one call."""

    value: Any
    failure: str | None
    """Why it returned nothing: the exception's name and message, the exceeded limit, or how its process ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one call."""

    seconds: float = 5.0
    """Wall-clock time."""
    memory_mib: int = 2048
    """Data of the worker's process, in MiB; may not be enforced on systems other than Linux."""

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.memory_mib > 0):
            raise ConfigError(f"a limit of {self.seconds} s and {self.memory_mib} MiB; expected numbers above 0")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True, eq=False)
class _Worker:
    pid: int
    connection: Connection
    deadline: float
    tasks: deque[int] = field(default_factory=deque)
    """Sent and not answered, the one under way first."""
    ready: bool = False

    @property
    def busy(self) -> bool:
        return bool(self.tasks) or not self.ready


class Pool:
    """Worker processes, started on the first task, and ended with this object or its process.

    Args:
        make: makes the function of a task, in each worker. It, the tasks and the results must be picklable.
        prepare: called before the workers are forked, for imports that all need; must start no thread.
        n_workers: number of processes.
        limits: of each call.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Any], Any]],
        *,
        prepare: Callable[[], object] | None = None,
        n_workers: int,
        limits: Limits,
    ):
        self._setup = Setup(prepare=prepare, make=make, memory_mib=limits.memory_mib)
        self._n_workers = n_workers
        self._limits = limits
        self._workers: list[_Worker] = []
        self._control: socket.socket | None = None

    def run(self, tasks: Sequence[Any]) -> Iterator[tuple[int, Outcome]]:
        """The index and outcome of each task, in any order.

        Raises:
            PluginError: `make` failed.
            WorkerError: the processes cannot be started.
        """
        todo = deque(range(len(tasks)))
        try:
            while todo or any(worker.busy for worker in self._workers):
                self._hand_out(todo, tasks)
                busy = {worker.connection: worker for worker in self._workers if worker.busy}
                left = min(worker.deadline for worker in busy.values()) - time.monotonic()
                for connection in wait(list(busy), timeout=max(left, 0.0)):
                    yield from self._receive(busy[connection], todo)  # type: ignore[index]  # only ours are waited for
                for worker in busy.values():
                    if worker.busy and time.monotonic() > worker.deadline and not worker.connection.poll():
                        yield from self._give_up(worker, f"took longer than {self._limits.seconds:g} s", todo)
        finally:
            if any(worker.tasks for worker in self._workers):  # the caller has stopped early
                self.close()

    def close(self) -> None:
        """End all processes; another run starts new ones."""
        self._workers.clear()
        if self._control is not None:
            self._control = None
            self._finalizer()

    def _hand_out(self, todo: deque[int], tasks: Sequence[Any]) -> None:
        idle = [worker for worker in self._workers if not worker.busy]
        while len(self._workers) < self._n_workers and len(self._workers) - len(idle) < len(todo):
            self._start()
        for worker in idle[: len(todo)]:
            size = max(1, min(CHUNK, len(todo) // (2 * self._n_workers)))
            worker.tasks.extend(todo.popleft() for _ in range(min(size, len(todo))))
            worker.deadline = time.monotonic() + self._limits.seconds
            with suppress(BrokenPipeError):  # it has ended: reading from it says so
                worker.connection.send([tasks[index] for index in worker.tasks])

    def _receive(self, worker: _Worker, todo: deque[int]) -> Iterator[tuple[int, Outcome]]:
        try:
            reply = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._give_up(worker, None, todo)
            return
        worker.deadline = time.monotonic() + self._limits.seconds
        if worker.ready:
            yield worker.tasks.popleft(), Outcome(reply.value, reply.failure)
        elif reply.failure is not None:
            self._end(worker)
            raise PluginError(reply.failure)
        worker.ready = True
        if reply.last:
            todo.extendleft(reversed(worker.tasks))
            self._end(worker)

    def _give_up(self, worker: _Worker, reason: str | None, todo: deque[int]) -> Iterator[tuple[int, Outcome]]:
        """End a worker: its first task fails, the others go back to the queue."""
        status = self._end(worker)
        reason = reason or f"its process ended with {_status(status)}"
        if not worker.ready:
            raise WorkerError(f"a worker process was not ready after {START_SECONDS:g} s, or {reason}")
        failed, *others = worker.tasks
        todo.extendleft(reversed(others))
        yield failed, Outcome(None, reason)

    def _start(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            pid = self._order(FORK, 0, theirs)
        self._workers.append(_Worker(pid, ours, time.monotonic() + START_SECONDS))

    def _end(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        worker.connection.close()
        return self._order(END, worker.pid)

    def _order(self, kind: bytes, pid: int, connection: Connection | None = None) -> int:
        """Have the fork server fork or end a worker; its process id, or its exit status."""
        control = self._control = self._control or self._fork_server()
        try:
            socket.send_fds(control, [ORDER.pack(kind, pid)], [connection.fileno()] if connection else [])
            answer = control.recv(ORDER.size, socket.MSG_WAITALL)
        except OSError:
            answer = b""
        except BaseException:  # interrupted between order and answer
            self.close()
            raise
        if len(answer) < ORDER.size:
            self.close()
            raise WorkerError("worker processes cannot be started, or were ended; see what they wrote above this")
        done, number = ORDER.unpack(answer)
        assert done == DONE
        return int(number)

    def _fork_server(self) -> socket.socket:
        """Start the process that forks the workers; its standard output is our standard error."""
        setup = pickle.dumps(self._setup)
        ours, theirs = socket.socketpair()
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        code += f"from {serve.__module__} import serve; serve({theirs.fileno()})"
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=2,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interrupt from the keyboard reaches the parent alone
                env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            )
        self._finalizer = weakref.finalize(self, _close, ours, process)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stream:
            stream.write(setup)
        return ours


def _close(control: socket.socket, fork_server: "subprocess.Popen[bytes]") -> None:
    control.close()
    try:
        fork_server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(fork_server.pid, signal.SIGKILL)
        fork_server.wait()


def _status(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name
