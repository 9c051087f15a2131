"""Peak memory of scoring and of training, ours beside the peers', each in a process of its own.

A figure is what the work adds to a process that has imported everything and loaded nothing: the model is part of it,
and so are gradients and the optimiser's state. It is a high-water mark of the system, so it includes what the allocator
keeps.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import plain_logprobs
from benchmarks.rows import BenchmarkError, Row, cheaper
from benchmarks.training import AS_IT_COMES, PEERS, PLAIN, TRL, Trains
from benchmarks.training_runs import NO_TRL, Plan, import_trainers, run_ours, trl_version
from benchmarks.workloads import Measurable, Workload, rollouts_of
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens

TARGET = 2.0
"""Of training under a vocabulary of 128k tokens."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


def memory(*, quick: bool) -> Iterator[Row]:
    """Rows of scoring and of training."""
    size, pairs = ("0.9M", 2) if quick else ("50M", 4)
    response = 80 if quick else 280
    for vocabulary in (128_000,) if quick else (128_000, 32_000):
        work = Workload(
            size=size, vocabulary=vocabulary, prompts=pairs, n=2, prompt_tokens=150, response_tokens=response
        )  # fmt: skip
        if not quick:
            yield scoring(work, name=f"memory/scoring, plain Hugging Face: {work}")
        twice = replace(work, prompts=2 * pairs)
        for peer in (TRL,) if quick else (TRL, AS_IT_COMES):
            target = TARGET if vocabulary >= 100_000 else None
            yield training(twice, peer, objective="dpo", name=f"memory/training dpo, {peer}: {work}", target=target)


def scoring(work: Measurable, *, name: str) -> Row:
    """Scoring, beside the plain way of transformers with batches of 8."""
    ours, peer = (partial(_scoring, score) for score in (score_tokens, plain_logprobs))
    return _row(name, ours, peer, work, target=None)


def training(work: Measurable, peer: str, *, objective: str, name: str, target: float | None = None) -> Row:
    """Two optimisation steps with half of the groups each, beside one of `training.PEERS`."""
    if peer != PLAIN and trl_version() is None:
        return Row(name=name, target=target, unit="MiB", missing=NO_TRL)
    ours, theirs = (partial(_training, train, objective) for train in (run_ours, PEERS[peer]))
    return _row(name, ours, theirs, work, target=target)


Job = Callable[[Measurable], Callable[[], object]]
"""Can be pickled; given what is measured it returns the work, with what the work needs but the models."""


def _row(name: str, ours: Job, peer: Job, work: Measurable, *, target: float | None) -> Row:
    if not can_measure():
        missing = "this system does not tell a process's peak (no /proc/self/clear_refs)"
        return Row(name=name, target=target, unit="MiB", missing=missing)
    threads = torch.get_num_threads()
    our_peak, peer_peak = (peak_mib(job, work, threads=threads) for job in (ours, peer))
    details = {"weights_mib": work.weights_mib}
    return cheaper(name, ours=our_peak, peer=peer_peak, target=target, unit="MiB", details=details)


def _scoring(score: Callable[..., object], work: Measurable) -> Callable[[], object]:
    encoded = encode(work.tokenizer(), rollouts_of(work.groups()))
    return lambda: score(work.model(), encoded)


def _training(train: Trains, objective: str, work: Measurable) -> Callable[[], object]:
    if trl_version() is not None:
        import_trainers()  # in either's process, and before the work
    groups = tuple(work.groups())
    plan = Plan(objective=objective, groups=groups, groups_a_batch=len(groups) // 2)
    tokenizer = work.tokenizer()

    def train_once() -> None:
        with tempfile.TemporaryDirectory() as out:
            train(work.model(), tokenizer, plan, out=Path(out))

    return train_once


def can_measure() -> bool:
    """Whether the system tells a process's peak, and forgets an earlier one."""
    return _STATUS.exists() and os.access(_CLEAR, os.W_OK)


def peak_mib(job: Callable[..., Callable[[], object]], *given: Any, threads: int) -> float:
    """MiB that a job adds at its peak to what its process held after importing what the job needs.

    Args:
        job: a function of a module; given the arguments it returns the work, and only the work is measured, models
            that the work makes included.
        given: the job's arguments, which can be pickled.
        threads: of torch in the process.

    Raises:
        BenchmarkError: the process failed.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sending, job, given, threads))
    process.start()
    sending.close()
    try:
        peak: float = receiving.recv()
    except EOFError as error:
        process.join()
        raise BenchmarkError(
            f"{job}{given}: its process ended with code {process.exitcode} and no figure; its own message is "
            "above, and code -9 means that the memory did not suffice"
        ) from error
    process.join()
    return peak


def _measure(sending: Any, job: Callable[..., Callable[[], object]], given: tuple[Any, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    work = job(*given)
    _CLEAR.write_text(_FORGET_PEAK, encoding="utf-8")
    before = _kib("VmRSS")
    work()
    sending.send((_kib("VmHWM") - before) / 1024)


def _kib(name: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
