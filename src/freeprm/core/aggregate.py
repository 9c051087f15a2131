"""K step scores -> one score for the response.

What depends on beta, the scale of implicit rewards, and what does not: min, max, sum, mean and last
scale with it, so which of several responses scores highest under any of them does not depend on beta.
A threshold, and the weight that a response gets in a vote through a sigmoid, do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from freeprm.errors import ConfigError, DataError, NonFiniteError

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
    """The aggregator of this name.

    Raises:
        ConfigError: there is none; names the closest.
    """
    if name not in AGGREGATORS:
        close = get_close_matches(name, AGGREGATORS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"aggregator: no {name!r}; expected one of {', '.join(AGGREGATORS)}.{hint}")
    return AGGREGATORS[name]


def _checked(step_scores: Sequence[float]) -> Sequence[float]:
    if not step_scores:
        raise DataError("a response without step scores cannot be scored; expected one score a step, at least one step")
    for step, score in enumerate(step_scores):
        if not math.isfinite(score):
            raise NonFiniteError(f"step {step} has score {score}; expected finite step scores")
    return step_scores
