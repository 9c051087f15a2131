"""Worker processes: programs of their own that talk over a pipe, and end with their parent in any case.

They are not started by multiprocessing, which would run the caller's script again in each of them.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from typing import Any

Work = Callable[[Connection], None]
"""A module's function, called in the process with its end of the pipe."""


class Process:
    """The parent's side of one process.

    Args:
        work: imported in the process by its module and name.
        stack: stops the process on exit.
        n_threads: of its numerical libraries, unless the environment sets them.
    """

    def __init__(self, work: Work, stack: ExitStack, *, n_threads: int | None = None):
        self.connection, theirs = Pipe()
        stack.callback(self.connection.close)
        code = f"from {__name__} import serve; serve({theirs.fileno()}, {work.__module__!r}, {work.__qualname__!r})"
        threads = {} if n_threads is None else {"OMP_NUM_THREADS": str(n_threads)}
        # Its own session, so that an interrupt from the keyboard reaches the parent alone, which then stops it.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True,
            env={**threads, **os.environ},
        )  # fmt: skip
        stack.callback(self._stop)
        theirs.close()

    def send(self, message: object) -> None:
        """Send a message; a process that has ended is noticed by `receive`."""
        with suppress(ConnectionError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The next message from the process; an EOFError if it has ended."""
        try:
            return self.connection.recv()
        except ConnectionError as error:
            raise EOFError from error

    def ending(self) -> str:
        """The exit code of a process that has ended, and what it may mean."""
        code = self._process.wait()
        return f"exit code {code}; a negative one is a signal, -9 mostly too little memory"

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def serve(fileno: int, module: str, name: str) -> None:
    """The process's side: work until it is done, or until the parent's end of standard input closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Work = getattr(import_module(module), name)
    work(Connection(fileno))


def _end_with_parent() -> None:
    # Not by sys.stdin, whose lock this thread would hold while the interpreter of a process that is done shuts down.
    while os.read(0, 1024):
        pass
    os._exit(1)
