"""Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

0.5 is what scores without information give. Nothing here depends on the scale of the scores.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from freeprm.errors import DataError, NonFiniteError

Floats = NDArray[np.float64]
_CELLS = 1_000_000  # draws x items at once: 8 MB an array


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Mean over all pairs of (positive, negative) of 1 if the positive scores higher, 1/2 on ties, else 0.

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
    """The AUC inside each unit, from its own items alone; what tells units apart counts for nothing in it.

    Args:
        scores: (M,) finite.
        positive: (M,) bool.
        units: (M,) int: the unit, 0..P-1, that each item belongs to.
        n_units: P.

    Returns:
        (P,) NaN where a unit lacks a positive or a negative.

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
    """The AUC of each of R bootstrap draws, every item counted as often as its unit was drawn.

    Args:
        scores: (M,) finite.
        positive: (M,) bool.
        units: (M,) int: the unit, 0..P-1, that each item belongs to.
        times: (R, P) as from `intervals.resample`.

    Returns:
        (R,) float64, NaN where a draw holds no positive or no negative.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    values, flags, owners = np.asarray(scores, float), np.asarray(positive, bool), np.asarray(units, np.int64)
    if not np.isfinite(values).all():
        raise NonFiniteError("a score is NaN or infinite; expected finite scores")
    if 2 * flags.sum() > flags.size:  # the larger class is only summed up, the smaller one looks sums up
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
