"""Processes that each load the model and draw batches, one thread each: for models too small to fill two cores.

They are started as programs of their own rather than by multiprocessing, which would run the caller's
script again in each of them. They end with their parent, however that ends: their standard input is a
pipe from it, and closes.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait

import torch
from transformers.utils import logging

from freeprm.engines.base import Sampled, SamplingParams
from freeprm.engines.hf.decoding import Wanted, decode
from freeprm.errors import FreePRMError, ModelError
from freeprm.models.backbone import LoadOptions, load_backbone

_SEND_EVERY = 32  # samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every worker needs to know."""

    model: str
    """A folder here."""
    load: LoadOptions
    n_threads: int
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a worker sends before it ends of an error."""

    error: FreePRMError
    """Of our own, or a ModelError that quotes someone else's."""


_Message = list[Sampled] | _Failure | None  # samples; a failure; ready for a batch


def sample_in_workers(job: Job, batches: Sequence[Sequence[Wanted]], *, n_workers: int) -> Iterator[Sampled]:
    """Draw batches in processes, each given the next batch when it is done with one.

    Raises:
        ModelError: a worker failed or was killed.
    """
    waiting = list(reversed(batches))
    with ExitStack() as stack:
        workers = {worker.connection: worker for worker in (_Worker(job, stack) for _ in range(n_workers))}
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                message = workers[connection].receive()
                if message is not None:
                    yield from message
                elif waiting:
                    workers[connection].give(waiting.pop())
                else:
                    del workers[connection]


class _Worker:
    """The parent's side of one worker, stopped when the stack is left."""

    def __init__(self, job: Job, stack: ExitStack):
        self.connection, theirs = Pipe()
        stack.callback(self.connection.close)
        command = [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
        # Its own session, so that an interrupt from the keyboard reaches the parent alone, which then stops it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True
        )
        stack.callback(self._stop)
        theirs.close()
        self.connection.send(job)

    def receive(self) -> list[Sampled] | None:
        """Samples, or None where the worker is ready for a batch."""
        try:
            message: _Message = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(message, _Failure):
            raise message.error
        return message

    def give(self, batch: Sequence[Wanted]) -> None:
        """Have the worker draw a batch; it may have ended since it said that it is ready."""
        try:
            self.connection.send(batch)
        except ConnectionError as error:
            raise self._ended() from error

    def _ended(self) -> ModelError:
        code = self._process.wait()
        return ModelError(
            f"a sampling process ended with exit code {code}; a negative one is a signal, -9 mostly too little "
            "memory. The output above may say more; one worker needs the least memory"
        )

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def _end_with_parent() -> None:
    """Wait for the parent's end of standard input to close, and end this process."""
    sys.stdin.buffer.read()
    os._exit(1)


def _work(connection: Connection) -> None:
    job: Job = connection.recv()
    torch.set_num_threads(job.n_threads)
    logging.disable_progress_bar()
    backbone = load_backbone(job.model, job.load)
    while True:
        connection.send(None)
        finished: list[Sampled] = []
        for sampled in decode(backbone, connection.recv(), params=job.params):
            finished.append(sampled)
            if len(finished) >= _SEND_EVERY:
                connection.send(finished)
                finished = []
        connection.send(finished)


def serve(fileno: int) -> None:
    """The worker's side: draw batches until the parent has no more."""
    connection = Connection(fileno)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _work(connection)
    except EOFError:
        return  # the parent is done with us
    except FreePRMError as error:
        connection.send(_Failure(error))
    except Exception as error:  # whatever it was, the parent must hear of it
        connection.send(_Failure(ModelError(f"a sampling process failed: {type(error).__name__}: {error}")))
        raise
