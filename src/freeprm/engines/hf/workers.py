"""Processes that each load the model and draw samples with one thread: for models too small to fill two cores."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import torch

from freeprm.engines.base import Sampled, SamplingParams
from freeprm.engines.hf.decoding import Room, Wanted, decode, no_count
from freeprm.errors import FreePRMError, ModelError
from freeprm.io.processes import Process
from freeprm.models.loading import LoadOptions, load_backbone

_SEND_EVERY, _SEND_SECONDS = 32, 0.5  # samples are sent at the first of these
_READY, _DONE = "ready", "done"  # ready for another group; all are drawn
_Group = Sequence[Wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingJob:
    """The common input of all workers."""

    model: str
    """A local folder."""
    load: LoadOptions
    n_threads: int
    params: SamplingParams
    room: Room
    """Of each worker."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A worker's samples since its last message."""

    samples: list[Sampled]
    n_tokens: int


def sample_in_workers(
    job: DrawingJob, groups: Sequence[_Group], *, n_workers: int, count: Callable[[int], None] = no_count
) -> Iterator[Sampled]:
    """Draw the samples of groups in processes; each takes the next group when it has room.

    Raises:
        FreePRMError: of a worker.
        ModelError: a worker failed otherwise, or was killed.
    """
    waiting = iter(groups)
    with ExitStack() as stack:
        started = [Process(draw_groups, stack) for _ in range(n_workers)]
        for worker in started:
            worker.send(job)
        workers = {worker.connection: worker for worker in started}
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                message = _received(workers[connection])
                if isinstance(message, _Drawn):
                    count(message.n_tokens)
                    yield from message.samples
                elif message == _READY:
                    workers[connection].send(next(waiting, None))
                else:
                    del workers[connection]


def _received(worker: Process) -> _Drawn | str:
    try:
        message: _Drawn | FreePRMError | str = worker.receive()
    except EOFError as error:
        raise ModelError(
            f"a sampling process ended with {worker.ending()}. The output above may say more; one worker needs the "
            "least memory"
        ) from error
    if isinstance(message, FreePRMError):
        raise message
    return message


def draw_groups(connection: Connection) -> None:
    """The worker's side: draw until the parent has no more groups."""
    try:
        job: DrawingJob = connection.recv()
        torch.set_num_threads(job.n_threads)
        backbone = load_backbone(job.model, job.load)
        outbox = _Outbox(connection)
        for sampled in decode(backbone, _groups(connection), params=job.params, room=job.room, count=outbox.count):
            outbox.samples.append(sampled)
        outbox.send()
        connection.send(_DONE)
    except EOFError:
        return  # the parent has stopped
    except FreePRMError as error:
        connection.send(error)
    except Exception as error:  # whatever it was, the parent must know
        connection.send(ModelError(f"a sampling process failed: {type(error).__name__}: {error}"))
        raise


def _groups(connection: Connection) -> Iterator[_Group]:
    """Groups from the parent, each requested before it is needed."""
    connection.send(_READY)
    while (group := connection.recv()) is not None:
        connection.send(_READY)
        yield group


class _Outbox:
    """Sends samples in batches."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self.samples: list[Sampled] = []
        self._n_tokens = 0
        self._sent = time.monotonic()

    def count(self, n_tokens: int) -> None:
        self._n_tokens += n_tokens
        if len(self.samples) >= _SEND_EVERY or time.monotonic() - self._sent > _SEND_SECONDS:
            self.send()

    def send(self) -> None:
        self._connection.send(_Drawn(self.samples, self._n_tokens))
        self.samples, self._n_tokens, self._sent = [], 0, time.monotonic()
