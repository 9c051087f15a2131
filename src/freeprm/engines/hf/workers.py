"""Processes that each load the model and draw samples, one thread each: for models too small to fill two cores.

They are started as programs of their own rather than by multiprocessing, which would run the caller's
script again in each of them. They end with their parent, however that ends: their standard input is a
pipe from it, and closes.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait

import torch

from freeprm.engines.base import Sampled, SamplingParams
from freeprm.engines.hf.decoding import Room, Wanted, decode, no_count
from freeprm.errors import FreePRMError, ModelError
from freeprm.models.loading import LoadOptions, load_backbone

_SEND_EVERY, _SEND_SECONDS = 32, 0.5  # samples, or what there is after so long


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingJob:
    """What every worker needs to know."""

    model: str
    """A folder here."""
    load: LoadOptions
    n_threads: int
    params: SamplingParams
    room: Room
    """Of each worker."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What a worker has drawn since it said so last."""

    samples: list[Sampled]
    n_tokens: int


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a worker sends before it ends of an error."""

    error: FreePRMError
    """Of our own, or a ModelError that quotes someone else's."""


_ASKING, _DONE = "asking", "done"  # for a group; nothing is left to draw
_Message = _Drawn | _Failure | str
_Group = Sequence[Wanted]


def sample_in_workers(
    job: DrawingJob, groups: Sequence[_Group], *, n_workers: int, count: Callable[[int], None] = no_count
) -> Iterator[Sampled]:
    """Draw the samples of groups in processes, each given the next group when it has room.

    Raises:
        ModelError: a worker failed or was killed.
    """
    waiting = iter(groups)
    with ExitStack() as stack:
        workers = {worker.connection: worker for worker in (_Worker(job, stack) for _ in range(n_workers))}
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                message = workers[connection].receive()
                if isinstance(message, _Drawn):
                    count(message.n_tokens)
                    yield from message.samples
                elif message == _ASKING:
                    workers[connection].give(next(waiting, None))
                else:
                    del workers[connection]


class _Worker:
    """The parent's side of one worker, stopped when the stack is left."""

    def __init__(self, job: DrawingJob, stack: ExitStack):
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

    def receive(self) -> _Drawn | str:
        """What the worker has to say."""
        try:
            message: _Message = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(message, _Failure):
            raise message.error
        return message

    def give(self, group: _Group | None) -> None:
        """Have the worker draw a group, None if there is no other; it may have ended since it asked."""
        try:
            self.connection.send(group)
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
    job: DrawingJob = connection.recv()
    torch.set_num_threads(job.n_threads)
    backbone = load_backbone(job.model, job.load)
    outbox = _Outbox(connection)
    for sampled in decode(backbone, _groups(connection), params=job.params, room=job.room, count=outbox.count):
        outbox.add(sampled)
    outbox.send()
    connection.send(_DONE)


def _groups(connection: Connection) -> Iterator[_Group]:
    """Groups as they are asked for, each a while before it is needed."""
    connection.send(_ASKING)
    while (group := connection.recv()) is not None:
        connection.send(_ASKING)
        yield group


class _Outbox:
    """Sends now and then what was drawn."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._samples: list[Sampled] = []
        self._n_tokens = 0
        self._sent = time.monotonic()

    def add(self, sampled: Sampled) -> None:
        self._samples.append(sampled)

    def count(self, n_tokens: int) -> None:
        self._n_tokens += n_tokens
        if len(self._samples) >= _SEND_EVERY or time.monotonic() - self._sent > _SEND_SECONDS:
            self.send()

    def send(self) -> None:
        self._connection.send(_Drawn(self._samples, self._n_tokens))
        self._samples, self._n_tokens, self._sent = [], 0, time.monotonic()


def serve(fileno: int) -> None:
    """The worker's side: draw until the parent has no more."""
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
