"""The paper's two propositions as code: Q values computed by formula and, independently, by enumeration.

A world small enough to enumerate: V tokens, responses of exactly T tokens. A policy is a table a position: entry t is
(V**t, V) float64, log pi(y_{t+1} | y_<=t), a row for each prefix of t tokens. Prefixes are numbered in base V, most
significant token first, so the continuations of a prefix are consecutive rows of every longer table. The same order
holds for values of prefixes: a list of T + 1 arrays, entry t being (V**t,), from the empty prefix to whole responses.

Source: Yuan et al. 2024, arXiv:2412.01981, Propositions 3.1 and 3.2, section 5.3.2 and FAQ B.1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Tables = Sequence[Floats]
"""T arrays, (V**t, V) for t = 0..T-1: a policy's log-probabilities, or anything else by prefix and next token."""


def random_tables(*, vocabulary: int, length: int, scale: float, rng: np.random.Generator) -> list[Floats]:
    """A policy with independent normal logits of standard deviation `scale` after every prefix."""
    logits = [scale * rng.standard_normal((vocabulary**t, vocabulary)) for t in range(length)]
    return [table - _log_sum_exp(table)[:, None] for table in logits]


def uniform_tables(*, vocabulary: int, length: int) -> list[Floats]:
    """The policy that gives every token 1 / V after every prefix."""
    return [np.full((vocabulary**t, vocabulary), -np.log(vocabulary)) for t in range(length)]


def prefix_sums(tables: Tables) -> list[Floats]:
    """Sums along each prefix: of a policy's tables, log pi(y_<=t); of token rewards, q_t by its definition."""
    sums = [np.zeros(1)]
    for table in tables:
        sums.append((sums[-1][:, None] + table).ravel())
    return sums


def q_from_ratio(policy: Tables, reference: Tables, *, beta: float) -> list[Floats]:
    """q_t = sum_{i<=t} beta * log( pi_phi(y_i | y_<i) / pi_ref(y_i | y_<i) ), for every prefix.

    Its last entry is the outcome reward r(y) of every response, (V**T,).

    Source: the left side of Eq. 2.
    """
    return prefix_sums([beta * (mine - other) for mine, other in zip(policy, reference, strict=True)])


def q_from_expectation(rewards: Floats, reference: Tables, *, beta: float) -> list[Floats]:
    """beta * log E_{y ~ pi_ref(. | y_<=t)} exp(r(y) / beta), for every prefix, over all of its continuations.

    Args:
        rewards: (V**T,) r(y) of every response: any numbers at all, not only log-ratios.
        beta: above 0, in units of the rewards.

    Source: the right side of Eq. 2.
    """
    return [
        beta * _log_sum_exp(log_weights + rewards.reshape(log_weights.shape) / beta)
        for log_weights in _continuations(reference)
    ]


def expected_reward(rewards: Floats, reference: Tables) -> list[Floats]:
    """E_{y ~ pi_ref(. | y_<=t)} r(y), for every prefix: what soft Monte-Carlo labels estimate (Eq. 1)."""
    return [
        (np.exp(log_weights) * rewards.reshape(log_weights.shape)).sum(-1) for log_weights in _continuations(reference)
    ]


def highest_reward(rewards: Floats, reference: Tables) -> list[Floats]:
    """max over y that begin with y_<=t of r(y), for every prefix: what hard Monte-Carlo labels estimate (Eq. 1)."""
    return [rewards.reshape(log_weights.shape).max(-1) for log_weights in _continuations(reference)]


def baseline_violation(policy: Tables, reference: Tables, *, beta: float, baseline: float) -> list[Floats]:
    """By how much Proposition 3.1 fails for every prefix if the reward is r(y) + Z(x), Z(x) being `baseline`.

    By exactly Z: beta * log E_ref exp((r + Z) / beta) = Z + beta * log E_ref exp(r / beta) = Z + q_t, while the summed
    log-ratio is still q_t. So the reward of entropy-regularised reinforcement learning fits only with Z = 0 (FAQ B.1).
    """
    ratio = q_from_ratio(policy, reference, beta=beta)
    expectation = q_from_expectation(ratio[-1] + baseline, reference, beta=beta)
    return [right - left for right, left in zip(expectation, ratio, strict=True)]


def reference_left_out(policy: Tables, *, beta: float) -> list[Floats]:
    """q_t with log pi_ref left out: sum_{i<=t} beta * log pi_phi(y_i | y_<i), for every prefix.

    It is q_t against a uniform reference, minus beta * t * log V. The shift is the same for prefixes of one length,
    so their order is kept; between lengths it is not, and so neither is the order of steps with unequal numbers of
    tokens (section 5.3.2 of the paper has the constant cancel, without this condition).
    """
    return prefix_sums([beta * table for table in policy])


def largest_difference(mine: Sequence[Floats], other: Sequence[Floats]) -> float:
    """The largest absolute difference over all prefixes of all lengths; NaN if any is."""
    return float(np.max([np.abs(a - b).max() for a, b in zip(mine, other, strict=True)]))  # max() would lose a NaN


def _continuations(reference: Tables) -> list[Floats]:
    """Entry t is (V**t, V**(T-t)): log pi_ref(y | y_<=t) of every way to go on from every prefix."""
    whole = prefix_sums(reference)
    return [whole[-1].reshape(len(prefix), -1) - prefix[:, None] for prefix in whole]


def _log_sum_exp(values: Floats) -> Floats:
    """Over the last axis, without overflow."""
    highest = values.max(-1)
    return np.asarray(highest + np.log(np.exp(values - highest[..., None]).sum(-1)), dtype=np.float64)
