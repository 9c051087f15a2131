"""Training: this package's trainer beside TRL's and a plain loop, on the same batches in the same dtype.

A rate counts every response with its prompt, over the time of optimisation steps and of the reference's pass over the
same responses, which both sides compute before training. The first step of each run is left out. Both start from the
same weights, and their losses and gradients are compared step by step before any rate is given.

TRL's trainers recompute activations in the backward pass unless told otherwise, and ours does not. So TRL is run with
the setting of ours, and once more as it comes.
"""

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.rows import Row, check_agreement, faster
from benchmarks.timing import Rate, interleaved
from benchmarks.training_runs import NO_TRL, Plan, TrainingRun, run_ours, run_plain, run_trl, trl_version
from benchmarks.workloads import Measurable, Workload, rollouts_of
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens

TARGETS = {"dpo": 4.0, "kto": 3.0}


class Tolerance(NamedTuple):
    """How much two runs may differ by."""

    logp: float
    """Nats a token, of the reference's log-probabilities."""
    loss: float
    """Relative, of a step."""
    grad_norm: float
    """Likewise."""


EXACT, ROUNDED = Tolerance(logp=1e-4, loss=1e-3, grad_norm=1e-2), Tolerance(logp=5e-2, loss=0.2, grad_norm=0.2)
"""In float32, and in bfloat16: TRL rounds logits, and a step's loss on SmolLM2 differed by 13 %."""


class Trains(Protocol):
    """One way to train; see `training_runs`."""

    def __call__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: Plan, *, out: Path
    ) -> TrainingRun:
        """Train the model."""
        ...


TRL = "TRL"
AS_IT_COMES = f"{TRL} as it comes"
"""With its default, recomputed activations."""
PLAIN = "plain Hugging Face"
PEERS: dict[str, Trains] = {
    TRL: partial(run_trl, checkpointing=False), AS_IT_COMES: partial(run_trl, checkpointing=True), PLAIN: run_plain,
}  # fmt: skip
"""By the names that rows have for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is measured in one go."""

    work: Measurable
    """For `dpo` of pairs: N = 2."""
    objective: str
    groups_a_batch: int
    peers: tuple[str, ...] = (TRL,)
    target: float | None = None
    bf16: bool = False
    """See `Plan`."""
    rounds: int = 1
    subject: str = "training/"
    """The beginning of its rows' names."""

    def name(self, peer: str) -> str:
        """Of the row of a peer."""
        return f"{self.subject}{self.objective}, {peer}: {self.work}{', autocast to bfloat16' if self.bf16 else ''}"


def training(*, quick: bool) -> Iterator[Row]:
    """Rows of each case."""
    for case in _quick() if quick else _full():
        yield from measure(case)


def measure(case: Case) -> Iterator[Row]:
    """The rows of one case; if TRL is not installed, only ours has a figure beside it.

    Raises:
        BenchmarkError: losses, gradients or log-probabilities differ.
    """
    tokenizer = case.work.tokenizer()
    plan = Plan(
        objective=case.objective, groups=tuple(case.work.groups()), groups_a_batch=case.groups_a_batch, bf16=case.bf16
    )
    encoded = encode(tokenizer, rollouts_of(plan.groups))
    score_tokens(case.work.model(), encoded[:2])  # what only the first pass of a process does is nobody's to pay
    lengths = [len(item.ids) for item in encoded]
    n_tokens = sum(len(item.ids) for item in encode(tokenizer, rollouts_of(plan.measured)))
    present = [peer for peer in case.peers if peer == PLAIN or trl_version() is not None]
    trains: dict[str, Trains] = {"ours": run_ours} | {peer: PEERS[peer] for peer in present}
    runs: dict[str, list[TrainingRun]] = {name: [] for name in trains}

    def run(name: str) -> Callable[[], object]:
        return lambda: runs[name].append(_run(trains[name], case.work, plan))

    interleaved({name: run(name) for name in trains}, rounds=case.rounds)
    rates = {
        name: Rate(amount=n_tokens, seconds=tuple(one.seconds(n_steps=plan.n_steps) for one in made))
        for name, made in runs.items()
    }
    first = {name: made[0] for name, made in runs.items()}
    details = {"steps": plan.n_steps - 1, "groups_a_batch": case.groups_a_batch, "first_loss": first["ours"].losses[0]}
    for peer in case.peers:
        if peer not in present:
            yield Row(
                name=case.name(peer), ours=rates["ours"].median, target=case.target, unit="tokens/s", details=details,
                missing=NO_TRL,
            )  # fmt: skip
            continue
        same = check_same(first["ours"], first[peer], lengths, tolerance=ROUNDED if case.bf16 else EXACT)
        yield faster(
            case.name(peer), ours=rates["ours"], peer=rates[peer], target=case.target,
            details={
                **details, **same, "trl": trl_version(), **_parts(first["ours"], "ours"), **_parts(first[peer], "peer"),
            },
        )  # fmt: skip


def check_same(
    ours: TrainingRun, theirs: TrainingRun, lengths: Sequence[int], *, tolerance: Tolerance = EXACT
) -> dict[str, Any]:
    """The largest differences of two runs, if they are small.

    Args:
        ours: a run.
        theirs: a run with the same plan.
        lengths: tokens of each response.
        tolerance: what is small.

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
    for (name, value), most in zip(differences.items(), tolerance, strict=True):
        check_agreement(f"training: {name.removesuffix('_difference')}", value, most=most)
    return differences


def _quick() -> Iterator[Case]:
    for vocabulary in (32_000, 128_000):
        work = Workload(size="0.9M", vocabulary=vocabulary, prompts=6, n=2, prompt_tokens=100, response_tokens=100)
        yield Case(work=work, objective="dpo", groups_a_batch=2, target=TARGETS["dpo"])
    work = replace(work, vocabulary=32_000)
    yield Case(work=work, objective="kto", groups_a_batch=2, target=TARGETS["kto"])


def _full() -> Iterator[Case]:
    for vocabulary in (32_000, 128_000):
        for objective, target in TARGETS.items():
            work = Workload(size="50M", vocabulary=vocabulary, prompts=12, n=2, prompt_tokens=180)
            peers = (TRL, AS_IT_COMES) if objective == "dpo" else (TRL,)
            yield Case(work=work, objective=objective, groups_a_batch=4, peers=peers, target=target)


def _run(train: Trains, work: Measurable, plan: Plan) -> TrainingRun:
    """One side's run, from a model of its own with the same weights."""
    gc.collect()  # of the trainers before, with their models
    with tempfile.TemporaryDirectory() as out:
        return train(work.model(), work.tokenizer(), plan, out=Path(out))


def _parts(run: TrainingRun, whose: str) -> dict[str, float]:
    """Where the time went."""
    return {f"{whose}_reference_seconds": run.reference_seconds, f"{whose}_step_seconds": sum(run.step_seconds)}


def _relative(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max(abs(left - right) / max(abs(right), 1e-9) for left, right in zip(ours, theirs, strict=True))
