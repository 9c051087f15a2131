"""`freeprm verify`: the paper's propositions, checked by enumeration for every installed objective.

A tabular policy over all responses of a tiny world is trained with each objective on random labels of outcomes or
steps. Whatever it learns, its summed log-ratios must be exponential averages of its outcome reward (Proposition 3.1):
the rewards are Q values of the learnt reward, which need not be a good one. Rewards that are no log-ratios, such as the
values of a head, are not checked.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from freeprm.core.theory import (
    Floats,
    Tables,
    baseline_violation,
    expected_reward,
    highest_reward,
    largest_difference,
    q_from_expectation,
    q_from_ratio,
    random_tables,
    reference_left_out,
    uniform_tables,
)
from freeprm.errors import NonFiniteError
from freeprm.io import plugins
from freeprm.io.runs import RunFolder
from freeprm.objectives.base import Objective, RewardBatch, with_means
from freeprm.types import Cost, Metric

VOCABULARY = 3
LENGTH = 4
STEP_LENGTH = 2
"""Tokens of a step: a response has two."""
BETA = 0.5
STEPS = 40
LEARNING_RATE = 0.05
EXACT = 1e-9
"""Tolerance of equality, in units of the reward; float64 leaves about 1e-15."""
N_PREFIXES = sum(VOCABULARY**t for t in range(LENGTH + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim with its measured error."""

    name: str
    measured: float
    """The largest error."""
    tolerance: float
    """For a claim about a limit, the bound at the beta used."""
    count: int
    """Prefixes (or responses) checked."""
    detail: str

    @property
    def passed(self) -> bool:
        """The error is within its tolerance."""
        return self.measured <= self.tolerance


def verify(*, seed: int = 0, out: Path | None = None) -> list[Check]:
    """Check both propositions, the remarks on baseline and reference, and Proposition 3.1 for every objective.

    Args:
        seed: of the random policies, rewards and labels.
        out: a run folder to write `metrics.json` to: a metric a check, its value the measured error.

    Raises:
        NonFiniteError: training with an objective gave a loss that is NaN or infinite.
        RunFolderError: `out` holds another run.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    checks = [
        *_any_policy(rng),
        *_bounds(rng),
        *_uniform_reference(rng),
        *(check for name in plugins.names("objectives") for check in _objective(name, rng)),
    ]
    if out is not None:
        with RunFolder(out, stage="verify", settings={"seed": seed}) as folder:
            folder.write_metrics(
                [Metric(metric=check.name, value=check.measured, count=check.count, seed=seed) for check in checks]
            )
            failed = [check.name for check in checks if not check.passed]
            seconds = round(time.perf_counter() - started, 3)
            folder.finish(cost=Cost(seconds=seconds), counts={"checks": len(checks), "failed": failed})
    return checks


def _any_policy(rng: np.random.Generator) -> Iterator[Check]:
    policy, reference = _random(rng), _random(rng)
    ratio = q_from_ratio(policy, reference, beta=BETA)
    yield Check(
        name="proposition_3_1/random_policy",
        measured=largest_difference(ratio, q_from_expectation(ratio[-1], reference, beta=BETA)),
        tolerance=EXACT,
        count=N_PREFIXES,
        detail="summed log-ratio against beta log E_ref exp(r / beta), every prefix",
    )
    baseline = 1.0
    violation = baseline_violation(policy, reference, beta=BETA, baseline=baseline)
    yield Check(
        name="baseline_breaks_3_1_by_its_value",
        measured=largest_difference(violation, [np.full_like(gap, baseline) for gap in violation]),
        tolerance=EXACT,
        count=N_PREFIXES,
        detail=f"with r + Z and Z = {baseline}, the two sides of Proposition 3.1 differ by Z at every prefix",
    )


def _bounds(rng: np.random.Generator) -> Iterator[Check]:
    """Proposition 3.2, for a fixed random reward."""
    reference = _random(rng)
    rewards = rng.standard_normal(VOCABULARY**LENGTH)
    soft, hard = expected_reward(rewards, reference), highest_reward(rewards, reference)
    betas = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4]
    values = [q_from_expectation(rewards, reference, beta=beta) for beta in betas]
    claims = [
        ("soft_below_q", "E_ref r <= q", [_excess(soft, q) for q in values], EXACT),
        ("q_below_hard", "q <= max r", [_excess(q, hard) for q in values], EXACT),
        ("q_falls_with_beta", "q at a larger beta is no larger",
         [_excess(larger, smaller) for smaller, larger in pairwise(values)], EXACT),
        # Hoeffding's lemma: q - E_ref r <= (max r - min r)^2 / (8 beta).
        ("soft_limit", f"q - E_ref r at beta {betas[-1]:g}, within its bound",
         [_excess(values[-1], soft)], float(np.ptp(rewards)) ** 2 / (8 * betas[-1])),
        # E_ref exp(r / beta) >= pi_ref(y*) exp(max r / beta), so max r - q <= -beta log pi_ref(y* | prefix).
        ("hard_limit", f"max r - q at beta {betas[0]:g}, within its bound",
         [_excess(hard, values[0])], -betas[0] * LENGTH * min(float(table.min()) for table in reference)),
    ]  # fmt: skip
    for name, detail, measured, tolerance in claims:
        count = N_PREFIXES * len(measured)
        yield Check(
            name=f"proposition_3_2/{name}",
            measured=float(np.max(measured)),
            tolerance=tolerance,
            count=count,
            detail=detail,
        )


def _uniform_reference(rng: np.random.Generator) -> Iterator[Check]:
    """Section 5.3.2: a uniform reference keeps Proposition 3.1, and may then be left out."""
    policy, uniform = _random(rng), uniform_tables(vocabulary=VOCABULARY, length=LENGTH)
    ratio = q_from_ratio(policy, uniform, beta=BETA)
    without = reference_left_out(policy, beta=BETA)
    shifted = [q - BETA * t * log(VOCABULARY) for t, q in enumerate(ratio)]
    moved = int((np.argsort(without[-1]) != np.argsort(ratio[-1])).sum())
    errors = [
        ("proposition_3_1", "Proposition 3.1 with a uniform reference, every prefix",
         largest_difference(ratio, q_from_expectation(ratio[-1], uniform, beta=BETA)), EXACT, N_PREFIXES),
        ("shift", "leaving it out lowers q_t by beta t log V, every prefix",
         largest_difference(without, shifted), EXACT, N_PREFIXES),
        ("ranking", "responses of equal length that change their rank when it is left out",
         float(moved), 0.0, VOCABULARY**LENGTH),
    ]  # fmt: skip
    for name, detail, measured, tolerance, count in errors:
        yield Check(
            name=f"uniform_reference/{name}", measured=measured, tolerance=tolerance, count=count, detail=detail
        )


def _objective(name: str, rng: np.random.Generator) -> Iterator[Check]:
    """Proposition 3.1 for a policy trained with this objective, and that it was trained at all."""
    reference = _random(rng)
    labels = torch.as_tensor(rng.permutation(np.arange(VOCABULARY**LENGTH) % 2 == 0))
    policy, before, after = _train(name, reference, labels, step_labels=_step_labels(rng))
    ratio = q_from_ratio(policy, reference, beta=BETA)
    yield Check(
        name=f"training_lowers_the_loss/{name}",
        measured=after - before,
        tolerance=-1e-3,
        count=VOCABULARY**LENGTH,
        detail=f"mean loss {before:.4f} before, {after:.4f} after {STEPS} updates on random labels",
    )
    yield Check(
        name=f"proposition_3_1/{name}",
        measured=largest_difference(ratio, q_from_expectation(ratio[-1], reference, beta=BETA)),
        tolerance=EXACT,
        count=N_PREFIXES,
        detail=f"the trained policy, whose outcome rewards lie in [{ratio[-1].min():.3f}, {ratio[-1].max():.3f}]",
    )


def _step_labels(rng: np.random.Generator) -> Tensor:
    """(V**T * T / STEP_LENGTH,) a random label for each step; responses with the same beginning share it."""
    responses = np.arange(VOCABULARY**LENGTH)
    ends = range(STEP_LENGTH, LENGTH + 1, STEP_LENGTH)
    labels = [rng.integers(0, 2, VOCABULARY**end)[responses // VOCABULARY ** (LENGTH - end)] for end in ends]
    return torch.as_tensor(np.stack(labels, axis=1).ravel(), dtype=torch.float64)


def _train(name: str, reference: Tables, labels: Tensor, *, step_labels: Tensor) -> tuple[list[Floats], float, float]:
    """A policy trained from the reference on all responses; the mean loss before and after."""
    objective: Objective = plugins.load("objectives", name)()
    frozen = [torch.as_tensor(table) for table in reference]
    logits = [table.clone().requires_grad_() for table in frozen]
    optimizer = torch.optim.Adam(logits, lr=LEARNING_RATE)
    losses: list[float] = []
    for step in range(STEPS + 1):
        batch = _batch(logits, frozen, labels, step_labels)
        loss = objective.losses(with_means(objective, batch)).mean()
        if not loss.isfinite():
            raise NonFiniteError(f"{name}: the loss is {loss.item()} after {step} steps; expected a finite number")
        losses.append(loss.item())
        if step < STEPS:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    policy = [table.detach().log_softmax(-1).numpy() for table in logits]
    return policy, losses[0], losses[-1]


def _batch(logits: Sequence[Tensor], reference: Sequence[Tensor], labels: Tensor, step_labels: Tensor) -> RewardBatch:
    """Every response of the world as one batch: one prompt, V**T responses of T tokens in steps of equal length."""
    responses = torch.arange(VOCABULARY**LENGTH)
    policy_logps = _token_logps([table.log_softmax(-1) for table in logits], responses)
    token_rewards = BETA * (policy_logps - _token_logps(reference, responses))  # (V**T, T)
    kl = (policy_logps.sum(1).exp() * token_rewards.sum(1)).sum().detach()
    return RewardBatch(
        token_rewards=token_rewards.flatten(),
        rows=responses.repeat_interleave(LENGTH),
        labels=labels,
        groups=torch.zeros_like(responses),
        kl=kl,
        steps=torch.arange(VOCABULARY**LENGTH * LENGTH) // STEP_LENGTH,
        step_labels=step_labels,
    )


def _token_logps(tables: Sequence[Tensor], responses: Tensor) -> Tensor:
    """(V**T, T) log-probability of each token of the numbered responses, first token first."""
    columns = [
        table[responses // VOCABULARY ** (LENGTH - t), responses // VOCABULARY ** (LENGTH - t - 1) % VOCABULARY]
        for t, table in enumerate(tables)
    ]
    return torch.stack(columns, dim=1)


def _random(rng: np.random.Generator) -> list[Floats]:
    return random_tables(vocabulary=VOCABULARY, length=LENGTH, scale=1.0, rng=rng)


def _excess(mine: Sequence[Floats], other: Sequence[Floats]) -> float:
    """The largest excess of `mine` over `other`, over all prefixes; at least 0, NaN if any value is."""
    return float(np.max([0.0, *((a - b).max() for a, b in zip(mine, other, strict=True))]))
