"""Peak memory of scoring and of training, ours beside the peers', each in a process of its own.

A figure is what the work adds to a process that has imported everything and loaded nothing: the model is part of it,
and so are gradients and the optimiser's state. It is a high-water mark of the system, so it includes what the allocator
keeps.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from freeprm.bench.base import Row
from freeprm.measurement.memory import can_measure, peak_mib
from freeprm.measurement.subjects import Workload, random_groups, random_model, word_tokenizer
from freeprm.measurement.training_runs import Plan, run_ours
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens
from freeprm.peers import plain_hf
from freeprm.peers.trl_trainers import import_trainers, run_trl, trl_version

TARGET = 2.0
"""Of training under a vocabulary of 128k tokens."""


def benchmark(*, quick: bool) -> Iterator[Row]:
    """See `Benchmark`."""
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
    return _row(f"memory/scoring, plain Hugging Face: {work}", _score_ours, _score_plainly, work, target=None)


def training(work: Workload, *, as_it_comes: bool) -> Iterator[Row]:
    """Two optimisation steps of DPO with P pairs each, beside TRL's."""
    target = TARGET if work.vocabulary >= 100_000 else None
    name = f"memory/training dpo, TRL{{}}: {work}"
    if trl_version() is None:
        missing = "TRL is not installed: pip install 'freeprm[bench]'"
        yield _unmeasured(name.format(""), missing, target=target)
        return
    yield _row(name.format(""), _train_ours, _train_trl, work, target=target)
    if as_it_comes:
        yield _row(name.format(" as it comes"), _train_ours, _train_trl_as_it_comes, work, target=target)


def _row(
    name: str, ours: Callable[..., Callable[[], object]], peer: Callable[..., Callable[[], object]], work: Workload, *,
    target: float | None,
) -> Row:  # fmt: skip
    if not can_measure():
        return _unmeasured(name, "this system does not tell a process's peak (no /proc/self/clear_refs)", target=target)
    threads = torch.get_num_threads()
    our_peak, peer_peak = (peak_mib(job, work, threads=threads) for job in (ours, peer))
    return Row(
        name=name, ours=our_peak, peer=peer_peak, ratio=peer_peak / our_peak, target=target, unit="MiB",
        details={"weights_mib": _weights_mib(work)},
    )  # fmt: skip


def _unmeasured(name: str, why: str, *, target: float | None) -> Row:
    return Row(name=name, ours=None, peer=None, ratio=None, target=target, unit="MiB", missing=why)


def _weights_mib(work: Workload) -> float:
    model = random_model(work, device="meta")
    return model.num_parameters() * model.dtype.itemsize / 2**20


def _score_ours(work: Workload) -> Callable[[], object]:
    return _scoring(work, score_tokens)


def _score_plainly(work: Workload) -> Callable[[], object]:
    return _scoring(work, plain_hf.token_logprobs)


def _scoring(work: Workload, score: Callable[..., object]) -> Callable[[], object]:
    rollouts = [rollout for group in random_groups(work) for rollout in group.rollouts]
    encoded = encode(word_tokenizer(work.vocabulary), rollouts)
    return lambda: score(random_model(work), encoded)


def _train_ours(work: Workload) -> Callable[[], object]:
    return _training(work, run_ours)


def _train_trl(work: Workload) -> Callable[[], object]:
    return _training(work, lambda *given, out: run_trl(*given, out=out, checkpointing=False))


def _train_trl_as_it_comes(work: Workload) -> Callable[[], object]:
    return _training(work, lambda *given, out: run_trl(*given, out=out, checkpointing=True))


def _training(work: Workload, run: Callable[..., object]) -> Callable[[], object]:
    import_trainers()  # in either's process, and before the work

    groups = tuple(random_groups(replace(work, prompts=2 * work.prompts)))
    plan = Plan(objective="dpo", groups=groups, groups_a_batch=work.prompts)
    tokenizer = word_tokenizer(work.vocabulary)

    def train() -> None:
        model: PreTrainedModel = random_model(work)
        with tempfile.TemporaryDirectory() as out:
            run(model, tokenizer, plan, out=Path(out))

    return train


PLUGIN = benchmark
