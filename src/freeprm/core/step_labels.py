"""The steps of a response with their labels, from whichever columns say so, and how far labels are from the truth.

Hard labels are held against whether each step is right: two ways of counting, because a right step that follows a wrong
one is right by itself and yet seldom leads to a right answer.

    all steps                  every step with a label and a known truth
    up to the first error      without the steps that come after the first wrong one

Soft labels are held against the probability of a right answer where that is known, from a far larger number of
completions, say; and hard ones against whether that is above 0, which is what they estimate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from freeprm.core.intervals import percentile_interval, resample
from freeprm.core.step_metrics import Named, ScoredSteps, estimates
from freeprm.core.steps import SPLITTERS, auto
from freeprm.errors import DataError
from freeprm.types import Metric, Rollout


class LabelledSteps(NamedTuple):
    """The texts of K steps, and K labels: true, false, or None where not known."""

    steps: list[str]
    labels: list[bool | None]

    @property
    def first_error(self) -> int | None:
        """Index of the first wrong step; None where none is known to be."""
        return first_error(self.labels)

    def known(self) -> tuple[list[str], list[bool]]:
        """The steps up to the first without a label, with their labels."""
        labels: list[bool] = []
        for label in self.labels:
            if label is None:
                break
            labels.append(label)
        return self.steps[: len(labels)], labels


class JudgedSteps(NamedTuple):
    """A response whose outcome and first error are known."""

    correct: bool
    labelled: LabelledSteps


def judged_steps(rollout: Rollout) -> JudgedSteps:
    """The outcome of a response, and its steps with labels that say which is the first wrong one.

    Raises:
        DataError: as `labelled_steps`; no outcome, or a step of unknown label before any wrong one. Equal messages for
            equal reasons, so that they can be counted together.
    """
    if rollout.correct is None:
        raise DataError("responses without label (correct)")
    labelled = labelled_steps(rollout)
    if None in labelled.labels[: labelled.first_error]:
        raise DataError("responses with a step of unknown label and no wrong one before it")
    return JudgedSteps(rollout.correct, labelled)


def first_error(labels: Sequence[bool | None]) -> int | None:
    """Index of the first wrong step; None where none is known to be."""
    return next((index for index, label in enumerate(labels) if label is False), None)


def steps_of(rollout: Rollout, *, count: int | None = None) -> list[str]:
    """The texts of a response's steps: those it came with, else the response as a splitter cuts it.

    Args:
        rollout: has `extra["steps"]`, which are given back as they are, or is cut, without whitespace around a step.
        count: how many there must be, where that is known: the first splitter decides that finds so many.

    Raises:
        DataError: the response is empty, or there are not `count` steps. The message says no more than that, so that
            equal ones can be counted together.
    """
    given = rollout.extra.get("steps")
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(step, str) for step in given):
        cuts = [list(given)]
    else:
        splitters = [auto] if count is None else [auto, *SPLITTERS.values()]
        cuts = [
            [rollout.response[span.start : span.stop].strip() for span in cut(rollout.response)] for cut in splitters
        ]
    if not cuts[0]:
        raise DataError("empty responses")
    found = next((steps for steps in cuts if count is None or len(steps) == count), None)
    if found is None:
        raise DataError("responses with another number of steps than step labels")
    return found


def labelled_steps(rollout: Rollout) -> LabelledSteps:
    """The steps of a response with their labels (`step_labels`), or with what `first_error` tells of them.

    Steps before the first wrong one are right; of those after it nothing is known.

    Raises:
        DataError: nothing is known of the steps, or of another number of steps. The message says no more than that, so
            that equal ones can be counted together.
    """
    labels, error = rollout.extra.get("step_labels"), rollout.extra.get("first_error")
    if isinstance(labels, Sequence) and all(label is None or isinstance(label, bool) for label in labels):
        return LabelledSteps(steps_of(rollout, count=len(labels)), list(labels))
    if "first_error" not in rollout.extra:
        raise DataError("responses without step labels")
    steps = steps_of(rollout)
    if error is None:
        return LabelledSteps(steps, [True] * len(steps))
    if isinstance(error, bool) or not isinstance(error, int) or not 0 <= error < len(steps):
        raise DataError("responses whose first_error is none of their steps")
    return LabelledSteps(steps, [*[True] * error, False, *[None] * (len(steps) - error - 1)])


ALL, JUDGED, REFERENCE = "all steps", "up to the first error", "reference above 0"
"""Selectors of metrics."""
_HARD = {"labels": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledResponse:
    """One response's K steps."""

    problem: str
    labels: Sequence[bool | None]
    """Hard; None where not known, as everywhere here."""
    values: Sequence[float | None]
    """Soft, 0 to 1."""
    truth: Sequence[bool | None] | None = None
    """Whether each step is right."""
    true_values: Sequence[float | None] | None = None
    """The probability of a right answer after each step."""


def label_errors(responses: Sequence[LabelledResponse], *, labeler: str, seed: int) -> list[Metric]:
    """Every error that can be measured on these responses; nothing where there is no truth.

    step_accuracy; step_precision and step_recall of the steps labelled wrong and of those that are; ProcessBench's
    numbers for the first step labelled wrong (accuracy_erroneous: the share of wrong responses whose first error it
    is); step_auc of the soft labels; step_value_mae and step_value_bias, the mean of |soft - true| and of soft - true
    over the steps before the last, which need no estimate.

    Args:
        responses: of all problems.
        labeler: its name; `scorer` of the metrics.
        seed: of the bootstrap.

    Raises:
        DataError: see `localisation.estimates`.
    """
    shares = _Shares(sorted({item.problem for item in responses}), labeler, seed)
    found: list[Metric] = []
    for selector, true in ((ALL, _all), (JUDGED, _judged), (REFERENCE, _reachable)):
        steps = _steps(responses, true)
        found += shares.metric("step_accuracy", selector, steps, lambda step: step.given == step.true)
        called_wrong = [step for step in steps if not step.given]
        found += shares.metric("step_precision", selector, called_wrong, lambda step: not step.true)
        wrong = [step for step in steps if not step.true]
        found += shares.metric("step_recall", selector, wrong, lambda step: not step.given)
    found += _located(responses, labeler=labeler, seed=seed)
    values = _values(responses)
    found += shares.metric("step_value_mae", None, values, lambda value: abs(value.given - value.true))
    return found + shares.metric("step_value_bias", None, values, lambda value: value.given - value.true)


class _Step(NamedTuple):
    """A step with what is held against each other."""

    problem: str
    given: float
    """The label, or the value."""
    true: float


class _Shares:
    """Means over steps, with intervals over problems.

    Args:
        problems: names of all.
        labeler: of whom the metrics are.
        seed: of the bootstrap.
    """

    def __init__(self, problems: Sequence[str], labeler: str, seed: int):
        self._units = {name: index for index, name in enumerate(problems)}
        self._labeler, self._seed = labeler, seed

    def metric(
        self, name: str, selector: str | None, steps: Sequence[_Step], amount: Callable[[_Step], float]
    ) -> list[Metric]:
        """The mean amount of a step; nothing where there are none."""
        if not steps:
            return []
        units = [self._units[step.problem] for step in steps]
        amounts = np.array([amount(step) for step in steps], dtype=float)
        times = resample(len(self._units), seed=self._seed)  # (R, P)
        above, below = (
            times @ np.bincount(units, weights=weights, minlength=len(self._units))
            for weights in (amounts, np.ones(len(amounts)))
        )
        drawn = np.divide(above, below, out=np.full(len(times), np.nan), where=below > 0)
        value, low, high = percentile_interval(float(amounts.mean()), drawn)
        return [
            Metric(
                metric=name, selector=selector, value=value, low=low, high=high, count=len(amounts),
                scorer=self._labeler, seed=self._seed,
            )
        ]  # fmt: skip


def _all(response: LabelledResponse) -> Sequence[bool | None]:
    return response.truth or ()


def _judged(response: LabelledResponse) -> Sequence[bool | None]:
    truth = response.truth or ()
    error = first_error(truth)
    return truth if error is None else truth[: error + 1]


def _reachable(response: LabelledResponse) -> Sequence[bool | None]:
    """Whether a right answer can be reached from each step but the last."""
    return [None if value is None else value > 0 for value in (response.true_values or ())[:-1]]


def _steps(
    responses: Sequence[LabelledResponse], true: Callable[[LabelledResponse], Sequence[bool | None]]
) -> list[_Step]:
    """Those of which both are known."""
    return [
        _Step(response.problem, label, right)
        for response in responses
        for label, right in zip(response.labels, true(response), strict=False)
        if label is not None and right is not None
    ]


def _located(responses: Sequence[LabelledResponse], *, labeler: str, seed: int) -> list[Metric]:
    """First errors, and the order of soft labels, on responses of which everything is known."""
    judged = [item for item in responses if item.truth and None not in item.labels and None not in item.values]
    scored = ScoredSteps(
        step_scores=[[float(label or False) for label in item.labels] for item in judged],
        first_errors=[first_error(item.truth or ()) for item in judged],
        problems=[item.problem for item in judged],
    )
    if not judged:
        return []
    hard = estimates(scored, thresholds=_HARD, seed=seed)
    values = [[float(value or 0.0) for value in item.values] for item in judged]
    soft = estimates(
        ScoredSteps(step_scores=values, first_errors=scored.first_errors, problems=scored.problems),
        thresholds={}, seed=seed,
    )  # fmt: skip
    kept = {
        **{Named(name.metric, None): item for name, item in hard.items() if name.selector in _HARD},
        **{name: item for name, item in soft.items() if name.metric == "step_auc"},
    }
    return [item.metric(name, scorer=labeler, seed=seed, group=None) for name, item in kept.items()]


def _values(responses: Sequence[LabelledResponse]) -> list[_Step]:
    """The steps before the last."""
    return [
        _Step(response.problem, value, true)
        for response in responses
        for value, true in zip(response.values[:-1], (response.true_values or ())[:-1], strict=False)
        if value is not None and true is not None
    ]
