"""Step and response metrics of one scorer, each with bootstrap replicates over problems.

Responses to one problem are drawn together. Two scorers of the same responses get the same draws, so
that their replicates can be subtracted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from freeprm.core.aggregate import aggregator
from freeprm.core.auc import weighted_auc
from freeprm.core.intervals import percentile_interval, resample
from freeprm.core.step_metrics import first_error_found, found, harmonic, judged_steps
from freeprm.types import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSteps:
    """B responses with a scorer's step scores and the truth."""

    step_scores: Sequence[Sequence[float]]
    first_errors: Sequence[int | None]
    """0-based, None where all steps are right."""
    correct: Sequence[bool | None]
    """Outcome labels; None where unknown."""
    problems: Sequence[str]
    """Problem of each response."""


class Named(NamedTuple):
    """Which metric, of which way of deciding."""

    metric: str
    selector: str | None


class Estimate(NamedTuple):
    """A value with what it would have been on R draws of the problems."""

    value: float
    replicates: Floats
    """(R,) NaN where a draw held nothing to measure."""
    n_items: int
    """Responses, or steps for `step_auc`."""

    def metric(self, name: Named, *, scorer: str, seed: int, group: str | None) -> Metric:
        """With its 95 % interval."""
        value, low, high = percentile_interval(self.value, self.replicates)
        return Metric(
            metric=name.metric, selector=name.selector, value=value, low=low, high=high, count=self.n_items,
            scorer=scorer, seed=seed, group=group,
        )  # fmt: skip


def estimates(
    scored: ScoredSteps, *, thresholds: Mapping[str, float], aggregators: Sequence[str], seed: int
) -> dict[Named, Estimate]:
    """Every metric that is defined on these responses.

    processbench_f1, accuracy_erroneous, accuracy_correct by threshold; first_error_accuracy; step_auc (right steps
    above first errors); response_auc by aggregator (right final answers above wrong ones).

    Args:
        scored: B responses.
        thresholds: what the selector is called -> the threshold.
        aggregators: names of `aggregate.AGGREGATORS`.
        seed: of the draws.

    Raises:
        DataError, NonFiniteError: as `step_metrics.found`.
    """
    names = sorted(set(scored.problems))
    index = {name: position for position, name in enumerate(names)}
    units = np.array([index[name] for name in scored.problems])  # (B,)
    times = resample(len(names), seed=seed)  # (R, P)
    erroneous = np.array([error is not None for error in scored.first_errors], dtype=bool)
    result: dict[Named, Estimate | None] = {}
    for selector, threshold in thresholds.items():
        hits = found(scored.step_scores, scored.first_errors, threshold)
        first = _share(hits[erroneous], units[erroneous], times)
        second = _share(hits[~erroneous], units[~erroneous], times)
        result[Named("processbench_f1", selector)] = _harmonic(first, second)
        result[Named("accuracy_erroneous", selector)] = first
        result[Named("accuracy_correct", selector)] = second
    named = first_error_found(scored.step_scores, scored.first_errors)
    result[Named("first_error_accuracy", None)] = _share(named, units[erroneous], times)
    steps = judged_steps(scored.step_scores, scored.first_errors)
    result[Named("step_auc", None)] = _auc(steps.scores, steps.right, units[steps.responses], times)
    graded = np.array([label is not None for label in scored.correct], dtype=bool)
    labels = np.array([label is True for label in scored.correct], dtype=bool)[graded]
    for name in aggregators:
        scores = np.array([aggregator(name)(row) for row in scored.step_scores])[graded]
        result[Named("response_auc", name)] = _auc(scores, labels, units[graded], times)
    return {name: estimate for name, estimate in result.items() if estimate is not None}


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, of two scorers on the same responses."""
    return Estimate(a.value - b.value, a.replicates - b.replicates, a.n_items)


def _share(hits: NDArray[np.bool_], units: NDArray[np.int64], times: Floats) -> Estimate | None:
    if not hits.size:
        return None
    n_hits, n_all = (np.bincount(units, weights=w, minlength=times.shape[1]) for w in (hits, np.ones(len(hits))))
    drawn = times @ n_all  # (R,)
    shares = np.divide(times @ n_hits, drawn, out=np.full(len(times), np.nan), where=drawn > 0)
    return Estimate(float(hits.mean()), shares, hits.size)


def _harmonic(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    if first is None or second is None:
        return None
    value = harmonic(np.array(first.value), np.array(second.value))
    defined = ~(np.isnan(first.replicates) | np.isnan(second.replicates))
    replicates = np.where(defined, harmonic(first.replicates, second.replicates), np.nan)
    return Estimate(float(value), replicates, first.n_items + second.n_items)


def _auc(scores: Floats, positive: ArrayLike, units: NDArray[np.int64], times: Floats) -> Estimate | None:
    flags = np.asarray(positive, dtype=bool)
    if flags.all() or not flags.any():
        return None
    value = weighted_auc(scores, flags, units, np.ones((1, times.shape[1])))[0]
    return Estimate(float(value), weighted_auc(scores, flags, units, times), flags.size)
