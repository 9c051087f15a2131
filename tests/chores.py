"""Work of toys for test_graph.py and test_processes.py, in a module that other processes can import."""

import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from freeprm.errors import DataError


def write(inputs: Sequence[Path] = (), *, out: Path) -> None:
    assert all(other.exists() for other in inputs), f"{out} came before what it needs"
    time.sleep(0.1)
    print(f"made {out.name} in {os.getpid()}")
    out.write_text(str(os.getpid()))


def fail(inputs: Sequence[Path] = (), *, message: str, out: Path) -> None:
    raise DataError(message)


def crash(*, out: Path) -> None:
    raise ZeroDivisionError("nothing to divide by")


def die(*, out: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def echo(connection: Connection) -> None:
    while True:
        connection.send((os.getpid(), os.environ.get("OMP_NUM_THREADS"), connection.recv()))


def leave(connection: Connection) -> None:
    raise SystemExit(3)
