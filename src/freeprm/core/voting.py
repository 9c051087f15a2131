"""Choosing one of N responses, or one of their answers; and the chance of each to be chosen from n of the N.

Answers are compared literally: pass canonical keys, with None for no answer.

Chances are over random subsets rather than the first n samples, whose order means nothing, and uniform over ties.
Best-of-n has a closed form; a vote is taken on all subsets if they are few, else on random ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from freeprm.errors import DataError, NonFiniteError
from freeprm.io.config import lookup

Floats = NDArray[np.float64]
Weighting = Callable[[Floats], Floats]
"""(..., N) scores of responses that vote together -> (..., N) weights."""


def best_of_n(scores: Sequence[float]) -> int:
    """Index of the highest score, the first on ties.

    Raises:
        DataError: there is no score.
        NonFiniteError: a score is NaN or infinite.
    """
    return int(np.argmax(_finite(scores)))


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, the first seen on ties; None without answers."""
    return weighted_vote(answers, [1.0] * len(answers))


def weighted_vote(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer with the largest sum of weights, the first seen on ties; None without answers.

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
    """sigmoid((score - mean) / standard deviation) of those who vote together; 1/2 if all are equal.

    For scores of unknown scale and zero: invariant under a positive factor and a constant.
    """
    values = _finite(scores)
    apart = values - values.mean(axis=-1, keepdims=True)
    spread = values.std(axis=-1, keepdims=True)
    # The mean of equal numbers may differ from them by rounding, which must not count as spread.
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
    """The weighting of this name, or a ConfigError."""
    return lookup(WEIGHTINGS, name, setting="weighting")


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


# Chances of being chosen from n of N samples.

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

_EXACT = 256
"""Maximum of samples for which distinct texts are counted exactly, in N^3 steps."""


class Chances(NamedTuple):
    """The choice, over all subsets."""

    samples: Floats
    """(N,) the chance of each sample."""
    tied: float
    """The chance of a tie: with another text, or in a vote with another answer."""


def best_of_n_chances(scores: Floats, n: int, *, texts: Indices | None = None) -> Chances:
    """Chance of each sample to be the best of n drawn without replacement, uniform over ties.

    The best is one of m equal samples above w others if all n are among those w + m, but not all among the w:
    (C(w + m, n) - C(w, n)) / C(N, n), divided equally among the m.

    Args:
        scores: (N,) finite.
        n: 1..N.
        texts: (N,) equal for equal responses: equal scores of one text are no tie. None: all are different.

    Returns:
        The samples' chances sum to 1.

    Raises:
        DataError: n is not in 1..N.
        NonFiniteError: a score is NaN or infinite.
    """
    count = len(scores)
    _check(count, n)
    if not np.isfinite(scores).all():
        raise NonFiniteError(f"one of {count} scores is NaN or infinite; expected finite scores")
    within = _within(count, n)
    _, levels, sizes = np.unique(scores, return_inverse=True, return_counts=True)  # ascending
    below = np.cumsum(sizes) - sizes
    won = within[below + sizes] - within[below]  # (L,) chance that the best score is this one
    names = np.arange(count) if texts is None else texts
    stride = int(names.max()) + 1
    alone, copies = np.unique(levels * stride + names, return_counts=True)  # each level's texts
    at = alone // stride
    by_one_text = np.bincount(at, weights=within[below[at] + copies] - within[below[at]])  # (L,)
    several = np.bincount(at) > 1
    return Chances((won / sizes)[levels], float((won - by_one_text)[several].sum()))


def vote_chances(groups: Indices, votes: Flags, scores: Floats, *, weigh: Weighting, subsets: Indices) -> Chances:
    """Chance of each answer to win a weighted vote, over R subsets, uniform over ties.

    Totals are tied if they differ by no more than rounding: n eps times the sum of absolute weights.

    Args:
        groups: (N,) from 0, equal for equal answers.
        votes: (N,) False without an answer.
        scores: (N,) turned into weights by `weigh`, within each subset.
        weigh: see `Weighting`.
        subsets: (R, n) sample indices, each row ascending, as from `draw_subsets`.

    Returns:
        An answer's chance is at its first sample; the sum is less than 1 if some subsets have no voter.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    rows, n = subsets.shape
    width = int(groups.max()) + 1
    cells = groups[subsets] + width * np.arange(rows)[:, None]  # (R, n): one cell for each subset and answer
    voting = votes[subsets]  # (R, n)
    weights = np.where(voting, weigh(scores[subsets]), 0.0)
    totals = np.bincount(cells.ravel(), weights=weights.ravel(), minlength=rows * width).reshape(rows, width)
    present = np.zeros(rows * width, dtype=bool)
    present[cells[voting]] = True
    # An answer without a voter in the subset has total 0, which must not beat a negative one.
    totals = np.where(present.reshape(rows, width), totals, -np.inf)
    rounding = n * np.finfo(np.float64).eps * np.abs(weights).sum(axis=1)
    first = (totals >= (totals.max(axis=1) - rounding)[:, None]) & np.isfinite(totals)  # (R, width)
    n_first = first.sum(axis=1)
    won = (first / np.maximum(n_first, 1)[:, None]).mean(axis=0)  # (width,)
    chances = np.zeros(len(groups))
    voters = np.flatnonzero(votes)
    answers, earliest = np.unique(groups[voters], return_index=True)
    chances[voters[earliest]] = won[answers]
    return Chances(chances, float((n_first > 1).mean()))


def distinct_text_accuracies(
    texts: Indices, right: Flags, sizes: Sequence[int], *, draws: int, seed: int
) -> list[float]:
    """Expected accuracy of choosing uniformly among the distinct texts of n of N samples, for each n.

    The accuracy of a scorer that knows nothing inside a problem: a text has one score, however often it was drawn.
    Exact for up to 256 samples: a[s, r] subsets of s right samples hold r distinct right texts, b[t, q] likewise for
    wrong ones, and the mean of r / (r + q) over all subsets is sum a[s, r] b[n-s, q] r / (r + q) / C(N, n).

    Args:
        texts: (N,) equal for equal responses.
        right: (N,) labels; a text counts by most of its samples.
        sizes: n, each 1..N.
        draws, seed: of random subsets, for more than 256 samples.

    Raises:
        DataError: an n is not in 1..N.
    """
    count = len(texts)
    for n in sizes:
        _check(count, n)
    _, texts, copies = np.unique(texts, return_inverse=True, return_counts=True)
    text_right = 2 * np.bincount(texts, weights=right) > copies  # (G,)
    if len(copies) == count:
        return [float(text_right.mean())] * len(sizes)
    if count > _EXACT:
        return [_drawn_distinct(texts, text_right, draw_subsets(count, n, draws=draws, seed=seed)) for n in sizes]
    a, b = _covering(copies[text_right]), _covering(copies[~text_right])
    r, q = np.arange(a.shape[1])[:, None], np.arange(b.shape[1])[None]
    shares = a @ (r / np.maximum(r + q, 1)) @ b.T  # by samples of right texts, and of wrong ones
    drawn = np.add.outer(np.arange(len(a)), np.arange(len(b)))
    sums = np.bincount(drawn.ravel(), weights=shares.ravel())
    return [float(sums[n]) / comb(count, n) for n in sizes]


@lru_cache(maxsize=64)  # problems mostly have the same N
def draw_subsets(count: int, n: int, *, draws: int, seed: int) -> Indices:
    """Subsets of size n of 0..N-1: all C(N, n) if that is at most `draws`, else that many at random.

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


@lru_cache(maxsize=64)
def _within(count: int, n: int) -> Floats:
    """(N + 1,) C(x, n) / C(N, n) for x = 0..N: the chance that all n are among x of the N samples."""
    left = np.arange(count, 0, -1)
    table = np.concatenate([[1.0], np.cumprod(np.clip(left - n, 0, None) / left)])[::-1]
    table.flags.writeable = False
    return table


def _covering(copies: Indices) -> Floats:
    """(S + 1, G + 1) for G texts with S samples in all: the number of subsets of s samples with exactly g texts."""
    single = int((copies == 1).sum())
    ways = np.zeros((int(copies.sum()) + 1, len(copies) + 1))
    for taken in range(single + 1):
        ways[taken, taken] = comb(single, taken)
    for m in copies[copies > 1].tolist():
        before = ways.copy()
        for taken in range(1, m + 1):
            ways[taken:, 1:] += comb(m, taken) * before[:-taken, :-1]
    return ways


def _drawn_distinct(texts: Indices, text_right: Flags, subsets: Indices) -> float:
    chosen = np.sort(texts[subsets], axis=1)  # (R, n)
    fresh = np.concatenate([np.ones((len(chosen), 1), dtype=bool), np.diff(chosen, axis=1) > 0], axis=1)
    return float(((fresh & text_right[chosen]).sum(axis=1) / fresh.sum(axis=1)).mean())


def _check(count: int, n: int) -> None:
    if not 1 <= n <= count:
        raise DataError(f"cannot choose from {n} of {count} samples; expected 1 to {count}")
