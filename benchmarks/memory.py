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
from benchmarks.training_runs import NO_TRL, Plan, import_trainers, run_ours, run_trl, trl_version
from benchmarks.workloads import Workload, random_groups, random_model, random_rollouts, word_tokenizer
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
            yield scoring(work)
        yield from training(work, as_it_comes=not quick)


def scoring(work: Workload) -> Row:
    """Scoring, beside the plain way of transformers with batches of 8."""
    ours, peer = (partial(_scoring, score) for score in (score_tokens, plain_logprobs))
    return _row(f"memory/scoring, plain Hugging Face: {work}", ours, peer, work, target=None)


def training(work: Workload, *, as_it_comes: bool) -> Iterator[Row]:
    """Two optimisation steps of DPO with P pairs each, beside TRL's."""
    target = TARGET if work.vocabulary >= 100_000 else None
    name = f"memory/training dpo, TRL{{}}: {work}"
    if trl_version() is None:
        yield Row(name=name.format(""), target=target, unit="MiB", missing=NO_TRL)
        return
    for how, checkpointing in (("", False), *([(" as it comes", True)] if as_it_comes else [])):
        peer = partial(_training, partial(run_trl, checkpointing=checkpointing))
        yield _row(name.format(how), partial(_training, run_ours), peer, work, target=target)


Job = Callable[[Workload], Callable[[], object]]
"""Can be pickled; given a workload it returns the work, with what the work needs but the models."""


def _row(name: str, ours: Job, peer: Job, work: Workload, *, target: float | None) -> Row:
    if not can_measure():
        missing = "this system does not tell a process's peak (no /proc/self/clear_refs)"
        return Row(name=name, target=target, unit="MiB", missing=missing)
    threads = torch.get_num_threads()
    our_peak, peer_peak = (peak_mib(job, work, threads=threads) for job in (ours, peer))
    model = random_model(work, device="meta")
    details = {"weights_mib": model.num_parameters() * model.dtype.itemsize / 2**20}
    return cheaper(name, ours=our_peak, peer=peer_peak, target=target, unit="MiB", details=details)


def _scoring(score: Callable[..., object], work: Workload) -> Callable[[], object]:
    encoded = encode(word_tokenizer(work.vocabulary), random_rollouts(work))
    return lambda: score(random_model(work), encoded)


def _training(run: Callable[..., object], work: Workload) -> Callable[[], object]:
    import_trainers()  # in either's process, and before the work
    groups = tuple(random_groups(replace(work, prompts=2 * work.prompts)))
    plan = Plan(objective="dpo", groups=groups, groups_a_batch=work.prompts)
    tokenizer = word_tokenizer(work.vocabulary)

    def train() -> None:
        with tempfile.TemporaryDirectory() as out:
            run(random_model(work), tokenizer, plan, out=Path(out))

    return train


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
