"""The server: responses a second, and how long each waits, beside the model's own rate on the same responses.

The server is a process of its own, `freeprm serve`, with as many torch threads as offline scoring takes here. Each
client sends one response at a time and the next when it is answered. Every answer is compared with the offline score of
its own response, so that one that is lost or mixed up ends the benchmark.
"""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.rows import BenchmarkError, Row, cheaper, faster
from benchmarks.timing import Rate, timed
from benchmarks.workloads import Workload, random_groups, random_model, word_tokenizer
from freeprm.models.loading import LoadOptions
from freeprm.scorers.base import Scorer, ScorerSource
from freeprm.types import Rollout

TOLERANCE = 1e-3
"""Nats that a response's log-likelihood may differ by from the one computed offline, in another batch."""
TARGET = 0.9
"""Share of the offline rate at 64 clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is measured in one go."""

    work: Workload
    clients: tuple[int, ...] = (1, 8, 64)
    rounds: int = 3


class Answered(NamedTuple):
    """What the clients saw."""

    seconds: float
    """Of all."""
    waits: list[float]
    """Seconds of each request."""
    retries: int
    """Requests that were told to come again."""

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of the requests did not exceed."""
        return 1000 * statistics.quantiles(self.waits, n=100, method="inclusive")[round(100 * share) - 1]


def serving(*, quick: bool) -> Iterator[Row]:
    """Rows of each case and number of clients."""
    if quick:
        work = Workload(size="0.9M", vocabulary=300, prompts=8, n=4, prompt_tokens=30, response_tokens=60)
        yield from measure(Case(work=work, clients=(1, 8), rounds=1))
        return
    for size, prompts in (("50M", 8), ("8M", 32), ("0.9M", 64)):
        work = Workload(size=size, vocabulary=32_000, prompts=prompts, n=8, prompt_tokens=60, response_tokens=150)
        yield from measure(Case(work=work))


def soak(*, quick: bool, minutes: float = 10.0) -> Iterator[Row]:
    """Memory of a server after ten minutes of requests from 16 clients, beside that after the first tenth of them."""
    seconds = 6.0 if quick else 60 * minutes
    work = Workload(size="0.9M", vocabulary=300, prompts=64, n=8, prompt_tokens=30, response_tokens=60)
    with _served(work) as (url, pid, scorer, rollouts):
        expected = _offline(scorer, rollouts)
        began, marks, n_requests = time.monotonic(), list[tuple[float, float]](), 0
        while not marks or marks[-1][0] < seconds:
            n_requests += len(_asked(url, rollouts, expected, n_clients=16).waits)
            marks.append((time.monotonic() - began, _resident_mib(pid)))
    first = next(mib for at, mib in marks if at >= seconds / 10)
    yield cheaper(
        f"serving/after a tenth of the time: soak of {seconds:g} s, 16 clients, {work}", ours=marks[-1][1], peer=first,
        unit="MiB", target=0.97, details={"requests": n_requests, "largest_mib": max(mib for _, mib in marks)},
    )  # fmt: skip


def measure(case: Case) -> Iterator[Row]:
    """A row for each number of clients.

    Raises:
        BenchmarkError: an answer is not the score of its response.
    """
    with _served(case.work) as (url, _, scorer, rollouts):
        expected = _offline(scorer, rollouts)
        for n_clients in case.clients:
            some = rollouts if n_clients >= 8 else rollouts[: max(8, len(rollouts) // 8)]
            known = expected[: len(some)]
            offline, seen = [], list[Answered]()
            for _ in range(case.rounds):
                offline.append(timed(lambda: _offline(scorer, rollouts)))
                seen.append(_asked(url, some, known, n_clients=n_clients))
            last = seen[-1]
            yield faster(
                f"serving/offline: {n_clients} clients, {case.work}", unit="responses/s",
                ours=Rate(amount=len(some), seconds=tuple(one.seconds for one in seen)),
                peer=Rate(amount=len(rollouts), seconds=tuple(offline)),
                target=TARGET if n_clients == 64 else None,
                details={
                    "p50_ms": statistics.median(one.percentile(0.5) for one in seen),
                    "p99_ms": statistics.median(one.percentile(0.99) for one in seen),
                    "requests": len(last.waits), "retries": last.retries,
                },
            )  # fmt: skip


@contextmanager
def _served(work: Workload) -> Iterator[tuple[str, int, Scorer, list[Rollout]]]:
    """A server of a random model's log-likelihood: its address and process, the model here, and the responses."""
    rollouts = [rollout for group in random_groups(work) for rollout in group.rollouts]
    with tempfile.TemporaryDirectory() as made:
        random_model(work).save_pretrained(made)
        word_tokenizer(work.vocabulary).save_pretrained(made)
        source = ScorerSource(source=made, scorer="untrained", options=LoadOptions(device="cpu"))
        command = [sys.executable, "-m", "freeprm", "serve", "--untrained", made, "--port", "0", "--device", "cpu"]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **threads})
        assert server.stderr
        try:
            events = (json.loads(line) for line in server.stderr if line.startswith("{"))
            url = next(event["url"] for event in events if event["event"] == "ready")
            with Path(made, "log").open("w") as log:
                drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=log)
                yield url, server.pid, source.load(), rollouts
                drain.kill()
        finally:
            server.terminate()
            server.wait()


def _offline(scorer: Scorer, rollouts: Sequence[Rollout]) -> list[float]:
    found, _ = scorer.score_rollouts(rollouts)
    return [float(found[index].reward or 0.0) for index in range(len(rollouts))]


def _asked(url: str, rollouts: Sequence[Rollout], expected: Sequence[float], *, n_clients: int) -> Answered:
    """Send each response once, from so many clients, in a random order; check every answer."""
    order = random.Random(0).sample(range(len(rollouts)), len(rollouts))
    host, _, port = url.removeprefix("http://").partition(":")
    waits: list[float] = []
    retries = 0

    async def client(todo: Iterator[int]) -> None:
        nonlocal retries
        reader, writer = await asyncio.open_connection(host, int(port))
        for index in todo:
            body = json.dumps({"prompt": rollouts[index].prompt, "responses": [rollouts[index].response]}).encode()
            head = f"POST /score HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            message = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
            started = time.perf_counter()
            while True:
                writer.write(message)
                status, answer = await _answer(reader)
                if status != 429:
                    break
                retries += 1
                await asyncio.sleep(0.05)
            waits.append(time.perf_counter() - started)
            if status != 200:
                raise BenchmarkError(f"response {index}: answered with {status}: {answer}")
            difference = abs(answer["results"][0]["reward"] - expected[index])
            if not difference <= TOLERANCE:
                raise BenchmarkError(f"response {index}: its score differs by {difference:.2e} from the offline one")
        writer.close()

    async def all_clients() -> None:
        todo = iter(order)  # shared: each index goes to one client
        async with asyncio.TaskGroup() as group:
            for _ in range(n_clients):
                group.create_task(client(todo))

    started = time.perf_counter()
    asyncio.run(all_clients())
    seconds = time.perf_counter() - started
    if len(waits) != len(rollouts):
        raise BenchmarkError(f"{len(waits)} of {len(rollouts)} requests were answered")
    return Answered(seconds, waits, retries)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.partition(":")[2]) for line in head.splitlines() if line.startswith("content-length"))
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


def _resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS"))
