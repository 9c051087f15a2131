"""Step and response metrics of one scorer, each with bootstrap replicates over problems, which are their texts.

Responses to one problem are drawn together. Two scorers of the same responses get the same draws, so
that their replicates can be subtracted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from freeprm.core.auc import unit_aucs, weighted_auc
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
    problems: Sequence[str]
    """Problem of each response; see `intervals.problem_text`."""


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
    """Responses; steps for `step_auc`; problems with both outcomes for `response_auc_within_problems`."""

    def metric(self, name: Named, *, scorer: str, seed: int, group: str | None) -> Metric:
        """With its 95 % interval."""
        value, low, high = percentile_interval(self.value, self.replicates)
        return Metric(
            metric=name.metric, selector=name.selector, value=value, low=low, high=high, count=self.n_items,
            scorer=scorer, seed=seed, group=group,
        )  # fmt: skip


def estimates(scored: ScoredSteps, *, thresholds: Mapping[str, float], seed: int) -> dict[Named, Estimate]:
    """Every metric of steps that is defined on these responses.

    processbench_f1, accuracy_erroneous, accuracy_correct by threshold; first_error_accuracy; step_auc (right steps
    above first errors).

    Args:
        scored: B responses.
        thresholds: what the selector is called -> the threshold.
        seed: of the draws.

    Raises:
        DataError, NonFiniteError: as `step_metrics.found`.
    """
    units, times = _drawn(scored.problems, seed)
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
    return {name: estimate for name, estimate in result.items() if estimate is not None}


def response_areas(
    scores: Mapping[str, Sequence[float]], *, correct: Sequence[bool | None], problems: Sequence[str], seed: int
) -> dict[Named, Estimate]:
    """How well scores tell right final answers from wrong ones, as far as that is defined on these responses.

    response_auc pools all responses, so that it also rewards knowing which problems are hard.
    response_auc_within_problems is the mean of the areas inside the problems that have both outcomes, whose responses
    are all that best-of-N chooses among.

    Args:
        scores: B each, by aggregator.
        correct: B outcome labels; responses without one (None) are left out.
        problems: of each response.
        seed: of the draws.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    units, times = _drawn(problems, seed)
    graded = np.array([label is not None for label in correct], dtype=bool)
    labels = np.array([label is True for label in correct], dtype=bool)[graded]
    result: dict[Named, Estimate | None] = {}
    for name, values in scores.items():
        given = np.asarray(values, dtype=np.float64)[graded]
        result[Named("response_auc", name)] = _auc(given, labels, units[graded], times)
        inside = unit_aucs(given, labels, units[graded], times.shape[1])
        result[Named("response_auc_within_problems", name)] = _mean(inside, times)
    return {name: estimate for name, estimate in result.items() if estimate is not None}


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, of two scorers on the same responses."""
    return Estimate(a.value - b.value, a.replicates - b.replicates, a.n_items)


def _drawn(problems: Sequence[str], seed: int) -> tuple[NDArray[np.int64], Floats]:
    """(B,) the unit of each response, and (R, P) how often each unit is drawn."""
    names, units = np.unique(np.array(problems, dtype=object), return_inverse=True)
    return units.astype(np.int64), resample(len(names), seed=seed)


def _mean(values: Floats, times: Floats) -> Estimate | None:
    """Over the units where it is defined."""
    defined = ~np.isnan(values)  # (P,)
    if not defined.any():
        return None
    drawn = times @ defined  # (R,)
    means = np.divide(times @ np.nan_to_num(values), drawn, out=np.full(len(times), np.nan), where=drawn > 0)
    return Estimate(float(values[defined].mean()), means, int(defined.sum()))


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
