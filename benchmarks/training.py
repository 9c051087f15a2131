"""Training: DPO and KTO with this package's trainer beside TRL's, on the same batches in the same dtype.

A rate counts every response with its prompt, over the time of optimisation steps and of the reference's pass over the
same responses, which both sides compute before training. The first step of each run is left out. Both start from the
same weights, and their losses and gradients are compared step by step before any rate is given.

TRL's trainers recompute activations in the backward pass unless told otherwise, and ours does not. So TRL is run with
the setting of ours, and once more as it comes.
"""

import gc
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, check_agreement, faster
from benchmarks.timing import Rate
from benchmarks.training_runs import NO_TRL, Plan, TrainingRun, run_ours, run_trl, trl_version
from benchmarks.workloads import Workload, random_groups, random_model, rollouts_of, word_tokenizer
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens

TARGETS = {"dpo": 4.0, "kto": 3.0}
LOSS_TOLERANCE, NORM_TOLERANCE, LOGP_TOLERANCE = 1e-3, 1e-2, 1e-4
"""Relative, of losses and gradient norms of a step; and nats a token, of the reference's log-probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is measured in one go."""

    work: Workload
    """`prompts` pairs: N = 2."""
    objective: str
    pairs_a_batch: int
    as_it_comes: bool = False
    """Run TRL with its default, recomputed activations, too."""


def training(*, quick: bool) -> Iterator[Row]:
    """Rows of each case."""
    for case in _quick() if quick else _full():
        yield from measure(case)


def measure(case: Case) -> Iterator[Row]:
    """The rows of one case; without TRL, only ours has a figure.

    Raises:
        BenchmarkError: losses, gradients or log-probabilities differ.
    """
    tokenizer = word_tokenizer(case.work.vocabulary)
    plan = Plan(objective=case.objective, groups=tuple(random_groups(case.work)), groups_a_batch=case.pairs_a_batch)
    encoded = encode(tokenizer, rollouts_of(plan.groups))
    score_tokens(random_model(case.work), encoded[:2])  # what only the first pass of a process does is nobody's to pay
    lengths = [len(item.ids) for item in encoded]
    names = ["ours"]
    if trl_version() is not None:
        names += ["TRL", *(["TRL as it comes"] if case.as_it_comes else [])]
    runs = {name: _run(name, case.work, plan) for name in names}
    responses_a_batch = case.pairs_a_batch * case.work.n
    n_tokens = sum(lengths[responses_a_batch : plan.n_steps * responses_a_batch])  # the first step is not measured
    details = {"steps": plan.n_steps - 1, "pairs_a_batch": case.pairs_a_batch, "first_loss": runs["ours"].losses[0]}
    rates = {name: Rate(amount=n_tokens, seconds=(run.seconds(n_steps=plan.n_steps),)) for name, run in runs.items()}
    if trl_version() is None:
        yield Row(
            name=f"training/{case.objective}, TRL: {case.work}", ours=rates["ours"].median,
            target=TARGETS[case.objective], unit="tokens/s", details=details, missing=NO_TRL,
        )  # fmt: skip
    for name in names[1:]:
        details |= check_same(runs["ours"], runs[name], lengths)
        yield faster(
            f"training/{case.objective}, {name}: {case.work}", ours=rates["ours"], peer=rates[name],
            target=TARGETS[case.objective],
            details={**details, "trl": trl_version(), **_parts(runs["ours"], "ours"), **_parts(runs[name], "peer")},
        )  # fmt: skip


def check_same(ours: TrainingRun, theirs: TrainingRun, lengths: Sequence[int]) -> dict[str, Any]:
    """The largest differences of two runs, if they are small.

    Args:
        ours: a run.
        theirs: a run with the same plan.
        lengths: tokens of each response.

    Raises:
        BenchmarkError: they are not.
    """
    by_token = [
        abs(left - right) / length
        for left, right, length in zip(ours.ref_logps, theirs.ref_logps, lengths, strict=True)
    ]
    differences = {
        "logp_difference": max(by_token),
        "loss_difference": _relative(ours.losses, theirs.losses),
        "grad_norm_difference": _relative(ours.grad_norms, theirs.grad_norms),
    }
    allowed = (LOGP_TOLERANCE, LOSS_TOLERANCE, NORM_TOLERANCE)
    for (name, value), most in zip(differences.items(), allowed, strict=True):
        check_agreement(f"training: {name.removesuffix('_difference')}", value, most=most)
    return differences


def _quick() -> Iterator[Case]:
    for vocabulary in (32_000, 128_000):
        work = Workload(size="0.9M", vocabulary=vocabulary, prompts=6, n=2, prompt_tokens=100, response_tokens=100)
        yield Case(work=work, objective="dpo", pairs_a_batch=2)
    yield Case(work=replace(work, vocabulary=32_000), objective="kto", pairs_a_batch=2)


def _full() -> Iterator[Case]:
    for vocabulary in (32_000, 128_000):
        for objective in TARGETS:
            work = Workload(size="50M", vocabulary=vocabulary, prompts=12, n=2, prompt_tokens=180)
            yield Case(work=work, objective=objective, pairs_a_batch=4, as_it_comes=objective == "dpo")


def _run(name: str, work: Workload, plan: Plan) -> TrainingRun:
    """One side's run, from a model of its own with the same weights."""
    gc.collect()  # of the trainers before, with their models
    policy, tokenizer = random_model(work), word_tokenizer(work.vocabulary)
    with tempfile.TemporaryDirectory() as out:
        if name == "ours":
            return run_ours(policy, tokenizer, plan, out=Path(out))
        return run_trl(policy, tokenizer, plan, out=Path(out), checkpointing=name == "TRL as it comes")


def _parts(run: TrainingRun, whose: str) -> dict[str, float]:
    """Where the time went."""
    return {f"{whose}_reference_seconds": run.reference_seconds, f"{whose}_step_seconds": sum(run.step_seconds)}


def _relative(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max(abs(left - right) / max(abs(right), 1e-9) for left, right in zip(ours, theirs, strict=True))
