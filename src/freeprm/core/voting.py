"""Choosing one of N responses, or one of their answers, and the chance that any of them is right.

Answers are compared as they are given: pass canonical keys, with None where there is no answer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import ArrayLike, NDArray

from freeprm.errors import ConfigError, DataError, NonFiniteError

Floats = NDArray[np.float64]
Weighting = Callable[[Floats], Floats]
"""(..., N) scores of the responses that vote together -> (..., N) their weights."""


def best_of_n(scores: Sequence[float]) -> int:
    """Index of the highest score, the first on ties.

    Raises:
        DataError: there is no score.
        NonFiniteError: a score is NaN or infinite.
    """
    return int(np.argmax(_finite(scores)))


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, the first seen on ties; None where no response has an answer."""
    return weighted_vote(answers, [1.0] * len(answers))


def weighted_vote(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer with the largest sum of weights, the first seen on ties; None where no response has an answer.

    Raises:
        DataError: not one weight an answer.
        NonFiniteError: a weight is NaN or infinite.
    """
    if len(answers) != len(weights):
        raise DataError(f"{len(answers)} answers with {len(weights)} weights; expected one weight an answer")
    if not answers:
        return None
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, _finite(weights).tolist(), strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return max(totals, key=totals.__getitem__, default=None)  # dicts keep the order of first sight


def sigmoid(scores: ArrayLike) -> Floats:
    """1 / (1 + exp(-score)), the paper's code: on scores far below 1, as a small beta gives, near 1/2 for all."""
    values = _finite(scores)
    decay = np.exp(-np.abs(values))  # never above 1
    return np.asarray(np.where(values >= 0, 1.0, decay) / (1.0 + decay))


def raw(scores: ArrayLike) -> Floats:
    """The score itself. A negative one votes against its own answer."""
    return _finite(scores)


def exponential(scores: ArrayLike) -> Floats:
    """exp(score - highest score): of log-ratios, the ratios. Known as softmax weighting; the sum does not matter."""
    values = _finite(scores)
    return np.asarray(np.exp(values - values.max(axis=-1, keepdims=True)))


def rank(scores: ArrayLike) -> Floats:
    """Rank from below / N: 1 for the best, 1/N for the worst, averaged over ties. Free of scale, hence of beta."""
    values = _finite(scores)
    below = (values[..., :, None] > values[..., None, :]).sum(-1)
    equal = (values[..., :, None] == values[..., None, :]).sum(-1)  # with itself
    return np.asarray((below + (equal + 1) / 2) / values.shape[-1], dtype=np.float64)


def standardised(scores: ArrayLike) -> Floats:
    """sigmoid((score - mean) / standard deviation) of those who vote together; 1/2 for all where they are equal.

    For scores of which neither the scale nor the zero is known: no positive factor and no constant changes it.
    """
    values = _finite(scores)
    apart = values - values.mean(axis=-1, keepdims=True)
    spread = values.std(axis=-1, keepdims=True)
    # A mean of equal numbers may miss them by rounding, and that must not become a spread.
    rounding = np.finfo(np.float64).eps * values.shape[-1] * np.abs(values).max(axis=-1, keepdims=True)
    return sigmoid(np.divide(apart, spread, out=np.zeros_like(values), where=spread > rounding))


def uniform(scores: ArrayLike) -> Floats:
    """1 for every response: the majority vote."""
    return np.ones_like(_finite(scores))


WEIGHTINGS: Mapping[str, Weighting] = {
    "sigmoid": sigmoid, "raw": raw, "standardised": standardised, "exp": exponential, "softmax": exponential,
    "rank": rank, "uniform": uniform,
}  # fmt: skip


def weighting(name: str) -> Weighting:
    """The weighting of this name.

    Raises:
        ConfigError: there is none; names the closest.
    """
    if name not in WEIGHTINGS:
        close = get_close_matches(name, WEIGHTINGS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"weighting: no {name!r}; expected one of {', '.join(WEIGHTINGS)}.{hint}")
    return WEIGHTINGS[name]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of n responses, c of them right, hold a right one: 1 - C(n-c, k) / C(n, k).

    Raises:
        DataError: not 0 <= c <= n and 1 <= k <= n.

    Source: Chen et al. 2021, arXiv:2107.03374, Equation 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise DataError(f"pass@{k} of {n} responses with {c} right: expected 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def _finite(scores: ArrayLike) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if not values.size:
        raise DataError("no scores; expected one a response, at least one")
    if not np.isfinite(values).all():
        where = int(np.argmin(np.isfinite(values.ravel())))
        raise NonFiniteError(f"score {where} is {values.ravel()[where]}; expected finite scores")
    return values
