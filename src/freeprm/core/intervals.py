"""95 % intervals by bootstrap over problems, and areas under the ROC curve on bootstrap draws.

The units are problems, not responses: responses to one problem succeed and fail together, and drawing them separately
would make intervals too narrow. A problem is its text, whatever its ids: ProcessBench has an id for each generator.
"""

import unicodedata
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from freeprm.errors import DataError, NonFiniteError
from freeprm.types import Prompt

Floats = NDArray[np.float64]

DRAWS = 2000
"""Bootstrap draws; the standard error of either end is about 1/65 of the interval's width."""
_ENDS = (2.5, 97.5)
_Z = 1.959963984540054  # the normal distribution's 97.5 % point


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def problem_text(prompt: Prompt) -> str:
    """Identifies a problem: the words of the prompt, without system messages, spacing, case and form of Unicode."""
    if not isinstance(prompt, str):
        prompt = "\n".join(message["content"] for message in prompt if message["role"] != "system")
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def bootstrap(values: ArrayLike, *, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Mean of (P,) values, one a problem, with the percentile bootstrap interval over problems.

    Raises:
        DataError: there is no value.
        NonFiniteError: a value is NaN or infinite.
    """
    units = _units(values)
    means = resample(len(units), seed=seed, draws=draws) @ units / len(units)
    return percentile_interval(float(units.mean()), means)


def paired_difference(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> Interval:
    """Mean of a - b over the same P problems, with its bootstrap interval: what both share cancels.

    Raises:
        DataError: not the same number of values, or none.
        NonFiniteError: a value is NaN or infinite.
    """
    first, second = _units(a), _units(b)
    if len(first) != len(second):
        raise DataError(
            f"a paired difference of {len(first)} and {len(second)} values; expected the same problems in both"
        )
    return bootstrap(first - second, seed=seed)


def wilson(successes: int, count: int) -> Interval:
    """Share of successes with Wilson's score interval, which keeps a width at 0 and 1.

    Raises:
        DataError: not 0 <= successes <= count, or count is 0.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if not (0 <= successes <= count and count):
        raise DataError(f"{successes} successes of {count}; expected 0 <= successes <= count and a count above 0")
    share, z2 = successes / count, _Z * _Z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


@lru_cache(maxsize=2)  # a stage repeats the same call often, and a result can take 2,000 x P x 8 bytes
def resample(count: int, *, seed: int = 0, draws: int = DRAWS) -> Floats:
    """(R, P) times that each of P units is drawn, in R draws of P with replacement. Read-only."""
    generator = np.random.default_rng([seed, count])
    times = np.empty((draws, count))
    for row in times:
        row[:] = np.bincount(generator.integers(0, count, count), minlength=count)
    times.flags.writeable = False
    return times


def percentile_interval(value: float, replicates: Floats) -> Interval:
    """A value with the 2.5 and 97.5 % points of its bootstrap replicates; NaN ones are left out.

    Raises:
        DataError: all replicates are NaN.
    """
    measured = replicates[~np.isnan(replicates)]
    if not measured.size:
        raise DataError("no bootstrap draw held both kinds of response; expected more responses")
    low, high = np.percentile(measured, _ENDS)
    return Interval(value, float(low), float(high))


def _units(values: ArrayLike) -> Floats:
    units = np.asarray(values, dtype=np.float64)
    if not units.size:
        raise DataError("no values to average; expected at least one problem")
    if not np.isfinite(units).all():
        raise NonFiniteError("a value to average is NaN or infinite; expected finite values")
    return units


# Areas under the ROC curve.

_CELLS = 1_000_000  # draws x items at once: 8 MB an array


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Mean over all pairs of (positive, negative) of 1 if the positive scores higher, 1/2 on ties, else 0.

    0.5 for scores without information; invariant under the scale of scores.

    Args:
        scores: (M,) finite.
        positive: (M,) bool.

    Raises:
        DataError: there is no positive, or no negative.
        NonFiniteError: a score is NaN or infinite.
    """
    flags = np.asarray(positive, dtype=bool)
    if flags.all() or not flags.any():
        raise DataError(f"an AUC of {int(flags.sum())} positives and {int((~flags).sum())} negatives; expected both")
    return float(weighted_auc(scores, flags, np.arange(flags.size), np.ones((1, flags.size)))[0])


def unit_aucs(scores: ArrayLike, positive: ArrayLike, units: ArrayLike, n_units: int) -> Floats:
    """The AUC inside each unit, from its own items only.

    Args:
        scores: (M,) finite.
        positive: (M,) bool.
        units: (M,) int: the unit of each item, 0..P-1.
        n_units: P.

    Returns:
        (P,) NaN if a unit lacks a positive or a negative.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    values, flags, owners = np.asarray(scores, float), np.asarray(positive, bool), np.asarray(units, np.int64)
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(n_units + 1))
    found = np.full(n_units, np.nan)
    for unit in range(n_units):
        mine = order[bounds[unit] : bounds[unit + 1]]
        if flags[mine].any() and not flags[mine].all():
            found[unit] = auc(values[mine], flags[mine])
    return found


def weighted_auc(scores: ArrayLike, positive: ArrayLike, units: ArrayLike, times: Floats) -> Floats:
    """The AUC on each of R bootstrap draws, every item counted as often as its unit was drawn.

    Args:
        scores: (M,) finite.
        positive: (M,) bool.
        units: (M,) int: the unit of each item, 0..P-1.
        times: (R, P) as from `intervals.resample`.

    Returns:
        (R,) float64, NaN if a draw has no positive or no negative.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    values, flags, owners = np.asarray(scores, float), np.asarray(positive, bool), np.asarray(units, np.int64)
    if not np.isfinite(values).all():
        raise NonFiniteError("a score is NaN or infinite; expected finite scores")
    if 2 * flags.sum() > flags.size:  # sums over the larger class are looked up by the smaller one
        values, flags = -values, ~flags
    order = np.argsort(values[~flags], kind="stable")
    negatives, negative_units = values[~flags][order], owners[~flags][order]
    below = np.searchsorted(negatives, values[flags], side="left")  # negatives under each positive
    not_above = np.searchsorted(negatives, values[flags], side="right")
    chunk = max(1, _CELLS // max(1, values.size))
    replicates = []
    for start in range(0, len(times), chunk):
        drawn = np.ascontiguousarray(times[start : start + chunk].T)  # (P, R'), so that an item is a row
        running = np.zeros((len(negatives) + 1, drawn.shape[1]))
        np.cumsum(drawn[negative_units], axis=0, out=running[1:])
        weights = drawn[owners[flags]]
        won = np.einsum("mr,mr->r", weights, running[below] + running[not_above]) / 2
        pairs = weights.sum(axis=0) * running[-1]
        replicates.append(np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
    return np.concatenate(replicates)
