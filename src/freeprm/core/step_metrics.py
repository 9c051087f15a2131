"""How well step scores find the first wrong step of a response.

The predicted first error is the first step scored below a threshold. Only the threshold is fitted, and it depends on
the scale of the scores (for implicit rewards, on beta); `step_auc` and the first-error accuracy do not.

An estimate has bootstrap replicates over problems: responses to one problem are drawn together. Two scorers of the same
responses have the same draws, so that their replicates can be subtracted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from freeprm.core.intervals import percentile_interval, resample, unit_aucs, weighted_auc
from freeprm.errors import DataError, NonFiniteError
from freeprm.types import Metric

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
StepScores = Sequence[Sequence[float]]
"""B responses, each with K step scores (K may differ)."""
FirstErrors = Sequence[int | None]
"""B true first errors: 0-based, None if all steps are right."""


class ProcessBenchScores(NamedTuple):
    """ProcessBench's three numbers, 0..1."""

    f1: float
    """Harmonic mean of the two accuracies, not the F1 of precision and recall."""
    accuracy_erroneous: float
    """Share of erroneous responses whose first error is predicted exactly."""
    accuracy_correct: float
    """Share of correct responses predicted to have no error."""


class Threshold(NamedTuple):
    """A fitted threshold and its F1 on the data of the fit."""

    value: float
    f1: float


class JudgedSteps(NamedTuple):
    """Steps whose truth is defined, of all responses."""

    scores: Floats
    """(M,)"""
    right: Flags
    """(M,)"""
    responses: NDArray[np.int64]
    """(M,) index of each step's response."""


def predict_first_error(step_scores: Sequence[float], threshold: float) -> int | None:
    """The first step with score < threshold, or None."""
    return next((step for step, score in enumerate(step_scores) if score < threshold), None)


def found(step_scores: StepScores, first_errors: FirstErrors, threshold: float) -> Flags:
    """(B,) whether the predicted first error is the true one, "none" included.

    Raises:
        DataError: a first error is not one of its response's steps, or a response has no step; names the response.
        NonFiniteError: a step score is NaN or infinite.
    """
    low, high = _ranges(step_scores, first_errors)
    return np.asarray((low < threshold) & (threshold <= high))


def processbench(step_scores: StepScores, first_errors: FirstErrors, threshold: float) -> ProcessBenchScores:
    """ProcessBench's F1 at a threshold: 2ab / (a + b) of the accuracies on erroneous and on correct responses.

    Raises:
        DataError: as `found`; or there is no erroneous response, or no correct one.
        NonFiniteError: a step score is NaN or infinite.

    Source: Zheng et al. 2024, arXiv:2412.06559, section 3.
    """
    hits, erroneous = found(step_scores, first_errors, threshold), _both_kinds(first_errors)
    first, second = float(hits[erroneous].mean()), float(hits[~erroneous].mean())
    return ProcessBenchScores(float(harmonic(np.array(first), np.array(second))), first, second)


def fit_threshold(step_scores: StepScores, first_errors: FirstErrors) -> Threshold:
    """The threshold with the highest F1 on these responses, which must not be those reported on.

    Every threshold is tried: F1 changes only at a first error's score, and at the lowest score of a correct response or
    of the steps before a first error. The result is the middle of the widest range with the highest F1, the first of
    equals.
    """
    low, high = _ranges(step_scores, first_errors)
    erroneous = _both_kinds(first_errors)
    bounds = np.unique(np.concatenate([low, high]))
    bounds = bounds[np.isfinite(bounds)]  # (U,) ascending; F1 is constant for thresholds in (bounds[i-1], bounds[i]]
    accuracies = [_share_right(low[kind], high[kind], bounds) for kind in (erroneous, ~erroneous)]
    f1 = harmonic(*accuracies)  # (U,)
    best = np.flatnonzero(np.diff(np.concatenate([[False], f1 == f1.max(), [False]]).astype(np.int8)))
    starts, stops = best[::2], best[1::2]  # runs of equal F1, as ranges of `bounds`
    lower = bounds[np.maximum(starts - 1, 0)]  # the lowest range has no lower end, and counts as empty
    upper = bounds[stops - 1]
    widest = int(np.argmax(upper - lower))
    middle = lower[widest] + (upper[widest] - lower[widest]) / 2
    return Threshold(float(middle if middle > lower[widest] else upper[widest]), float(f1.max()))


def first_error_found(step_scores: StepScores, first_errors: FirstErrors) -> Flags:
    """(E,) for each erroneous response, whether its lowest step (the first on ties) is its first error."""
    _ranges(step_scores, first_errors)
    pairs = zip(step_scores, first_errors, strict=True)
    return np.array([int(np.argmin(scores)) == error for scores, error in pairs if error is not None], dtype=bool)


def judged_steps(step_scores: StepScores, first_errors: FirstErrors) -> JudgedSteps:
    """The steps up to the first error, with their truth; whether a later step is right depends on a wrong premise."""
    _ranges(step_scores, first_errors)
    lengths = [len(s) if e is None else e + 1 for s, e in zip(step_scores, first_errors, strict=True)]
    scores = np.concatenate([np.asarray(s[:k], float) for s, k in zip(step_scores, lengths, strict=True)])
    right = np.ones(len(scores), dtype=bool)
    right[np.cumsum(lengths)[_erroneous(first_errors)] - 1] = False
    return JudgedSteps(scores, right, np.repeat(np.arange(len(lengths)), lengths))


def harmonic(a: Floats, b: Floats) -> Floats:
    """2ab / (a + b); 0 if both are 0."""
    both = a + b
    return np.divide(2 * a * b, both, out=np.zeros_like(both), where=both > 0)


def _ranges(step_scores: StepScores, first_errors: FirstErrors) -> tuple[Floats, Floats]:
    """(B,), (B,): a response is predicted correctly by thresholds t with low < t <= high, by none if low >= high.

    A correct response needs t <= every score; a first error e needs score_e < t <= every score before it.
    """
    low, high = np.empty(len(step_scores)), np.empty(len(step_scores))
    for index, (scores, error) in enumerate(zip(step_scores, first_errors, strict=True)):
        if not scores or (error is not None and not 0 <= error < len(scores)):
            raise DataError(
                f"response {index} has {len(scores)} step scores and first_error {error}; expected at least one step, "
                "and a 0-based first_error that is one of them"
            )
        low[index] = -np.inf if error is None else scores[error]
        high[index] = min(scores if error is None else scores[:error], default=np.inf)
        if not np.isfinite(scores).all():
            raise NonFiniteError(f"response {index} has a step score that is NaN or infinite; expected finite scores")
    return low, high


def _share_right(low: Floats, high: Floats, bounds: Floats) -> Floats:
    """(U,) share of responses predicted correctly at each bound: ranges begun minus ranges ended."""
    able = low < high
    begun = np.searchsorted(np.sort(low[able]), bounds, side="left")
    ended = np.searchsorted(np.sort(high[able]), bounds, side="left")
    return (begun - ended) / len(low)


def _erroneous(first_errors: FirstErrors) -> Flags:
    return np.array([error is not None for error in first_errors], dtype=bool)


def _both_kinds(first_errors: FirstErrors) -> Flags:
    flags = _erroneous(first_errors)
    if flags.all() or not flags.any():
        raise DataError(
            f"{int(flags.sum())} responses with an error and {int((~flags).sum())} without; expected some of both, "
            "without which F1 is not defined"
        )
    return flags


# Estimates, each with bootstrap replicates over problems.


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSteps:
    """B responses with a scorer's step scores and the truth."""

    step_scores: Sequence[Sequence[float]]
    first_errors: Sequence[int | None]
    """0-based, None if all steps are right."""
    problems: Sequence[str]
    """Problem of each response; see `intervals.problem_text`."""


class MetricName(NamedTuple):
    """A metric and the selector of its decisions."""

    metric: str
    selector: str | None


class Estimate(NamedTuple):
    """A value with its bootstrap replicates on R draws of the problems."""

    value: float
    replicates: Floats
    """(R,) NaN if nothing could be measured on a draw."""
    n_items: int
    """Responses; steps for `step_auc`; problems with both outcomes for `response_auc_within_problems`."""

    def metric(self, name: MetricName, *, scorer: str, seed: int, group: str | None) -> Metric:
        """The metric with its 95 % interval."""
        value, low, high = percentile_interval(self.value, self.replicates)
        return Metric(
            metric=name.metric, selector=name.selector, value=value, low=low, high=high, count=self.n_items,
            scorer=scorer, seed=seed, group=group,
        )  # fmt: skip


def estimates(scored: ScoredSteps, *, thresholds: Mapping[str, float], seed: int) -> dict[MetricName, Estimate]:
    """Every metric of steps that is defined on these responses.

    processbench_f1, accuracy_erroneous, accuracy_correct by threshold; first_error_accuracy; step_auc (right steps
    above first errors).

    Args:
        scored: the responses.
        thresholds: by selector.
        seed: of the bootstrap.
    """
    units, times = drawn_problems(scored.problems, seed)
    result: dict[MetricName, Estimate | None] = {}
    for selector, threshold in thresholds.items():
        first, second = _accuracies(scored, threshold, seed=seed)
        result[MetricName("processbench_f1", selector)] = _harmonic(first, second)
        result[MetricName("accuracy_erroneous", selector)] = first
        result[MetricName("accuracy_correct", selector)] = second
    result[MetricName("first_error_accuracy", None)] = first_error_estimate(scored, seed=seed)
    steps = judged_steps(scored.step_scores, scored.first_errors)
    result[MetricName("step_auc", None)] = _auc(steps.scores, steps.right, units[steps.responses], times)
    return {name: estimate for name, estimate in result.items() if estimate is not None}


def f1_estimate(scored: ScoredSteps, threshold: float, *, seed: int) -> Estimate | None:
    """ProcessBench's F1 at a threshold; None without erroneous responses or without correct ones."""
    return _harmonic(*_accuracies(scored, threshold, seed=seed))


def first_error_estimate(scored: ScoredSteps, *, seed: int) -> Estimate | None:
    """How often the lowest step of an erroneous response is its first error; None if there is no such response."""
    units, times = drawn_problems(scored.problems, seed)
    named = first_error_found(scored.step_scores, scored.first_errors)
    return mean_estimate(named, units[_erroneous(scored.first_errors)], times)


def area_within_problems(
    scores: Sequence[float], *, correct: Sequence[bool | None], problems: Sequence[str], seed: int
) -> Estimate | None:
    """The mean area inside the problems with both outcomes, among whose responses best-of-N chooses.

    Args:
        scores: B.
        correct: B outcome labels; responses without a label are left out.
        problems: B problems.
        seed: of the bootstrap.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    units, times = drawn_problems(problems, seed)
    graded, labels = _labels(correct)
    inside = unit_aucs(np.asarray(scores, dtype=np.float64)[graded], labels, units[graded], times.shape[1])
    defined = np.flatnonzero(~np.isnan(inside))
    return mean_estimate(inside[defined], defined, times)


CALIBRATION_BINS = 10


def calibration_error(
    chances: ArrayLike, *, correct: Sequence[bool], problems: Sequence[str], seed: int
) -> Estimate | None:
    """How far chances of being right are from how often they are, in ten bins of equal width: the mean |difference|.

    Args:
        chances: (B,) in 0..1.
        correct: B outcome labels.
        problems: B problems.
        seed: of the bootstrap.

    Source: Guo et al. 2017, arXiv:1706.04599, Eq. 3.
    """
    values = np.asarray(chances, dtype=np.float64)
    if not values.size:
        return None
    units, times = drawn_problems(problems, seed)
    bins = np.minimum((values * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.zeros((times.shape[1], CALIBRATION_BINS))  # (P, bins): sums of chance - outcome
    np.add.at(gaps, (units, bins), values - np.asarray(correct, dtype=np.float64))
    counts = np.bincount(units, minlength=times.shape[1]).astype(np.float64)  # (P,)
    every = np.vstack([np.ones((1, times.shape[1])), times])  # (1 + R, P)
    errors = np.abs(every @ gaps).sum(axis=1) / (every @ counts)
    return Estimate(float(errors[0]), errors[1:], values.size)


def response_areas(
    scores: Mapping[str, Sequence[float]], *, correct: Sequence[bool | None], problems: Sequence[str], seed: int
) -> dict[MetricName, Estimate]:
    """How well scores separate right from wrong final answers, if that is defined on these responses.

    response_auc pools all responses, so that it also rewards knowing which problems are hard.
    response_auc_within_problems is the mean area inside the problems with both outcomes, among whose responses
    best-of-N chooses.

    Args:
        scores: B each, by aggregator.
        correct: B outcome labels; responses without a label are left out.
        problems: B problems.
        seed: of the bootstrap.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    units, times = drawn_problems(problems, seed)
    graded, labels = _labels(correct)
    result: dict[MetricName, Estimate | None] = {}
    for name, values in scores.items():
        known = np.asarray(values, dtype=np.float64)[graded]
        result[MetricName("response_auc", name)] = _auc(known, labels, units[graded], times)
        result[MetricName("response_auc_within_problems", name)] = area_within_problems(
            values, correct=correct, problems=problems, seed=seed
        )
    return {name: estimate for name, estimate in result.items() if estimate is not None}


def _labels(correct: Sequence[bool | None]) -> tuple[Flags, Flags]:
    """(B,) which responses have a label, and (G,) the labels of these."""
    graded = np.array([label is not None for label in correct], dtype=bool)
    return graded, np.array([label is True for label in correct], dtype=bool)[graded]


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, of two scorers on the same responses."""
    return Estimate(a.value - b.value, a.replicates - b.replicates, a.n_items)


def drawn_problems(problems: Sequence[str], seed: int) -> tuple[NDArray[np.int64], Floats]:
    """(B,) unit of each response, and (R, P) times that each unit is drawn."""
    names, units = np.unique(np.array(problems, dtype=object), return_inverse=True)
    return units.astype(np.int64), resample(len(names), seed=seed)


def mean_estimate(amounts: ArrayLike, units: NDArray[np.int64], times: Floats) -> Estimate | None:
    """The mean of (M,) amounts, drawn with their (M,) units; None for no amounts. `times`: see `drawn_problems`."""
    values = np.asarray(amounts, dtype=np.float64)
    if not values.size:
        return None
    total, count = (
        times @ np.bincount(units, weights=weights, minlength=times.shape[1])
        for weights in (values, np.ones(len(values)))
    )
    replicates = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return Estimate(float(values.mean()), replicates, values.size)


def _accuracies(scored: ScoredSteps, threshold: float, *, seed: int) -> tuple[Estimate | None, Estimate | None]:
    """ProcessBench's two: on erroneous responses, on correct ones."""
    units, times = drawn_problems(scored.problems, seed)
    hits, erroneous = found(scored.step_scores, scored.first_errors, threshold), _erroneous(scored.first_errors)
    first, second = (mean_estimate(hits[kind], units[kind], times) for kind in (erroneous, ~erroneous))
    return first, second


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
