"""What a selector chooses from n of a problem's N samples: the chance of each sample to be chosen.

Taken over random subsets rather than the first n samples, whose order means nothing. Best-of-n has a
closed form; a vote is taken on every subset where there are few, else on drawn ones. A subset keeps
the order of its samples, so that "first on ties" means what it means for all N.
"""

from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from freeprm.core.voting import Floats, Weighting
from freeprm.errors import DataError, NonFiniteError

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


def best_of_n_chances(scores: Floats, n: int) -> Floats:
    """Chance of each sample to be the best of n drawn without replacement: C(N-1-rank, n-1) / C(N, n).

    Args:
        scores: (N,) finite; among equals the first ranks higher, as in `best_of_n`.
        n: 1..N.

    Returns:
        (N,) float64, sums to 1.

    Raises:
        DataError: n is not in 1..N.
        NonFiniteError: a score is NaN or infinite.
    """
    count = len(scores)
    _check(count, n)
    if not np.isfinite(scores).all():
        raise NonFiniteError(f"one of {count} scores is NaN or infinite; expected finite scores")
    ranks = np.arange(1, count)
    # Each rank's chance from the one before: times (N-rank-n+1) / (N-rank), 0 once fewer than n samples are left.
    factors = np.concatenate([[n / count], np.clip(count - ranks - n + 1, 0, None) / (count - ranks)])
    chances = np.empty(count)
    chances[np.argsort(-scores, kind="stable")] = np.cumprod(factors)
    return chances


def vote_chances(groups: Indices, votes: Flags, scores: Floats, *, weigh: Weighting, subsets: Indices) -> Floats:
    """Chance of each sample to be the first voter for the answer that wins: `weighted_vote` on R subsets at once.

    Args:
        groups: (N,) from 0: equal where answers are equal.
        votes: (N,) False where a response has no answer.
        scores: (N,) turned into weights by `weigh`, within each subset.
        subsets: (R, n) sample indices, each row ascending, as from `draw_subsets`.

    Returns:
        (N,) float64; sums to less than 1 where some subsets have no voter.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    rows = len(subsets)
    width = int(groups.max()) + 1
    cells = groups[subsets] + width * np.arange(rows)[:, None]  # (R, n): one cell for each subset and answer
    voting = votes[subsets]  # (R, n)
    weights = np.where(voting, weigh(scores[subsets]), 0.0)
    totals = np.bincount(cells.ravel(), weights=weights.ravel(), minlength=rows * width)
    # Looking totals up at the voters, rather than over all answers, finds the first seen on ties, and never an
    # answer that nobody in the subset gave, whose empty total would beat a negative one.
    first = np.where(voting, totals[cells], -np.inf).argmax(axis=1)  # (R,)
    decided = voting.any(axis=1)
    winners = np.take_along_axis(subsets, first[:, None], axis=1)[decided, 0]
    return np.bincount(winners, minlength=len(groups)) / rows


@lru_cache(maxsize=64)  # problems mostly have the same N
def draw_subsets(count: int, n: int, *, draws: int, seed: int) -> Indices:
    """Subsets of size n of 0..N-1: all C(N, n) where that is at most `draws`, else that many at random.

    Returns:
        (R, n) int64, each row ascending, read-only. The same arguments give the same subsets.

    Raises:
        DataError: n is not in 1..N.
    """
    _check(count, n)
    if comb(count, n) <= draws:
        subsets = np.array(list(combinations(range(count), n)), dtype=np.int64)
    else:
        keys = np.random.default_rng([seed, count, n]).random((draws, count))
        subsets = np.sort(np.argpartition(keys, n - 1, axis=1)[:, :n], axis=1)
    subsets.flags.writeable = False
    return subsets


def _check(count: int, n: int) -> None:
    if not 1 <= n <= count:
        raise DataError(f"cannot choose from {n} of {count} samples; expected 1 to {count}")
