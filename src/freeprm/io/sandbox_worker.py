"""What runs in the processes of `sandbox.py`: a warm fork server, and the workers that it forks.

The fork server is a program of its own with one thread, so forking it is safe whatever the parent has loaded, and
takes milliseconds. All processes end with the parent: the fork server when its socket closes, the workers with the
fork server.
"""

import ctypes
import gc
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, NoReturn

ORDER = struct.Struct("=cq")
"""A message between parent and fork server: a kind, and a worker's process id or exit status."""
FORK, END, DONE = b"F", b"E", b"D"
_PR_SET_PDEATHSIG = 1


class Setup(NamedTuple):
    """Sent to the fork server on its standard input, pickled; see `sandbox.Pool`."""

    prepare: Callable[[], object] | None
    make: Callable[[], Callable[[Any], Any]]
    memory_mib: int


class Reply(NamedTuple):
    """A worker's message: first that it is ready or why not, then one for each task."""

    value: Any
    failure: str | None
    last: bool
    """The worker ends now, since its memory cannot be relied on."""


def serve(descriptor: int) -> None:
    """The fork server: forks and ends workers on request, and ends all of them when its parent is gone."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setup: Setup = pickle.load(sys.stdin.buffer)
    if setup.prepare is not None:
        setup.prepare()
    gc.freeze()  # so that a collection in a worker does not copy the memory that all share
    workers: set[int] = set()
    while True:
        order, descriptors, *_ = socket.recv_fds(control, ORDER.size, 1)
        if not order:
            break
        kind, pid = ORDER.unpack(order)
        if kind == FORK:
            pid = os.fork()
            if pid == 0:
                control.close()
                _serve_tasks(setup, Connection(descriptors[0]))
            os.close(descriptors[0])
            workers.add(pid)
            control.sendall(ORDER.pack(DONE, pid))
        else:
            workers.discard(pid)
            control.sendall(ORDER.pack(DONE, _end(pid)))
    for pid in workers:
        _end(pid)


def _end(pid: int) -> int:
    """End a worker and whatever it has started; its exit code, negative for a signal."""
    for kill in (os.killpg, os.kill):  # its group may not be there yet
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _serve_tasks(setup: Setup, parent: Connection) -> NoReturn:
    """The whole life of a worker."""
    try:
        os.setpgid(0, 0)
        _end_with_fork_server()
        resource.setrlimit(resource.RLIMIT_DATA, (setup.memory_mib << 20,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        made = _attempt(setup.make, setup.memory_mib)
        reply = made._replace(value=None, last=made.failure is not None)
        parent.send(reply)
        while not reply.last:
            for task in parent.recv():
                reply = _attempt(partial(made.value, task), setup.memory_mib)
                _send(parent, reply)
                if reply.last:
                    break
    except (EOFError, OSError):  # the parent is gone or has stopped early
        pass
    finally:
        os._exit(0)


def _send(parent: Connection, reply: Reply) -> None:
    try:
        message = ForkingPickler.dumps(reply)
    except Exception as error:
        message = ForkingPickler.dumps(Reply(None, f"its result cannot be sent ({type(error).__name__})", False))
    parent.send_bytes(message)


def _end_with_fork_server() -> None:
    """On Linux, have the system kill this process when the fork server is killed."""
    fork_server = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != fork_server:
        os._exit(0)


def _attempt(call: Callable[[], Any], memory_mib: int) -> Reply:
    try:
        return Reply(call(), None, False)
    except MemoryError:
        return Reply(None, f"needed more than {memory_mib} MiB of memory", True)
    except BaseException as error:  # plug-ins may raise whatever they like, exits included
        return Reply(None, f"{type(error).__name__}: {error}"[:300].rstrip(": "), False)
