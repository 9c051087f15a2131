"""Jobs for tests/experiments/test_graph.py, in a module that other processes can import."""

import os
import signal
import time
from pathlib import Path

from freeprm.errors import DataError


def write(path: Path, needed: tuple[Path, ...]) -> None:
    assert all(other.exists() for other in needed), f"{path} came before what it needs"
    time.sleep(0.1)
    print(f"made {path.name} in {os.getpid()}")
    path.write_text(str(os.getpid()))


def fail(message: str) -> None:
    raise DataError(message)


def crash() -> None:
    raise ZeroDivisionError("nothing to divide by")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
