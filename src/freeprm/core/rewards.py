"""Token log-probabilities to rewards at every granularity: the one idea of the method. And step scores to one score.

    r(y)  = beta * log( pi_phi(y|x) / pi_ref(y|x) )
    q_t   = sum over i <= t of beta * log( pi_phi(y_i) / pi_ref(y_i) )
    r_k   = q at the end of step k - q at the end of step k-1

Beta scales the aggregates min, max, sum, mean and last, so the order of responses under any of them does not depend on
it. A threshold does, and so does a response's weight in a vote through a sigmoid.

Source: Yuan et al. 2024, arXiv:2412.01981, Proposition 3.1 and section 3.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from freeprm.core.steps import check_tiling
from freeprm.errors import ConfigError, DataError, NonFiniteError
from freeprm.io.config import lookup
from freeprm.types import Span

Floats = NDArray[np.float64]


def with_reference(policy: Floats, ref: Floats, beta: float) -> Floats:
    """(T,) beta * (log pi_phi - log pi_ref): the implicit process reward of each token."""
    return beta * (policy - ref)


def without_reference(policy: Floats, ref: Floats, beta: float) -> Floats:
    """(T,) beta * log pi_phi: the reference taken as uniform and dropped (Table 4)."""
    return beta * policy


def reference_only(policy: Floats, ref: Floats, beta: float) -> Floats:
    """(T,) beta * log pi_ref: the untrained model as scorer, the baseline of Table 4."""
    return beta * ref


REWARDS: Mapping[str, Callable[[Floats, Floats, float], Floats]] = {
    "with-reference": with_reference,
    "without-reference": without_reference,
    "reference-only": reference_only,
}
"""Token log-probabilities of policy and reference, and beta -> token rewards."""


def check_reward(name: str) -> str:
    """The name, or a ConfigError if it is not in `REWARDS`."""
    if name not in REWARDS:
        raise ConfigError(f"reward {name!r}: expected one of {', '.join(REWARDS)}")
    return name


def step_rewards(token_rewards: Floats, spans: Sequence[Span]) -> Floats:
    """Reward of each step: the sum of its tokens' rewards.

    Args:
        token_rewards: (T,) response tokens only, in beta * nats.
        spans: K ranges [start, stop) of tokens, in order, tiling 0..T.

    Returns:
        (K,); sums to the response's reward, up to rounding.

    Raises:
        SpanError: the spans do not tile 0..T; names the first bad span.
        NonFiniteError: a token reward is NaN or infinite.
    """
    check_tiling(spans, len(token_rewards))
    if not np.isfinite(token_rewards).all():
        raise NonFiniteError(f"the reward of token {int(np.flatnonzero(~np.isfinite(token_rewards))[0])} is not finite")
    return np.array([token_rewards[span.start : span.stop].sum() for span in spans])


def q_values(rewards: Floats) -> Floats:
    """q at the end of each step (or token): the running sum of its rewards."""
    return np.cumsum(rewards)


# Aggregation of step scores.

Aggregator = Callable[[Sequence[float]], float]
"""(K,) step scores -> one score; DataError on no steps, NonFiniteError on NaN or infinity."""


def lowest(step_scores: Sequence[float]) -> float:
    """min over steps: a response is as good as its worst step. The default.

    Source: Yuan et al. 2024, arXiv:2412.01981, section 4.1.
    """
    return min(_checked(step_scores))


def highest(step_scores: Sequence[float]) -> float:
    """max over steps."""
    return max(_checked(step_scores))


def total(step_scores: Sequence[float]) -> float:
    """Sum over steps: of implicit step rewards, the outcome reward r(y)."""
    return math.fsum(_checked(step_scores))


def mean(step_scores: Sequence[float]) -> float:
    """Sum over steps / K."""
    return math.fsum(_checked(step_scores)) / len(step_scores)


def last(step_scores: Sequence[float]) -> float:
    """The last step's score: for a scorer whose score at a step is a value of all steps so far."""
    return _checked(step_scores)[-1]


def product(step_scores: Sequence[float]) -> float:
    """Product over steps of probabilities, i.e. of the scores of a discriminative reward model.

    Raises:
        DataError: a score is outside [0, 1]. Log-ratio rewards are added, not multiplied: `sum`.
    """
    for step, score in enumerate(_checked(step_scores)):
        if not 0 <= score <= 1:
            raise DataError(
                f"prod: step {step} has score {score:g}; expected probabilities in [0, 1]. "
                "Choose 'sum' for rewards that are log-ratios: it is the product's counterpart there."
            )
    return math.prod(step_scores)


AGGREGATORS: Mapping[str, Aggregator] = {
    "min": lowest, "max": highest, "sum": total, "mean": mean, "last": last, "prod": product,
}  # fmt: skip


def aggregator(name: str) -> Aggregator:
    """The aggregator of this name, or a ConfigError."""
    return lookup(AGGREGATORS, name, setting="aggregator")


def _checked(step_scores: Sequence[float]) -> Sequence[float]:
    if not step_scores:
        raise DataError("a response without step scores cannot be scored; expected one score a step, at least one step")
    for step, score in enumerate(step_scores):
        if not math.isfinite(score):
            raise NonFiniteError(f"step {step} has score {score}; expected finite step scores")
    return step_scores
