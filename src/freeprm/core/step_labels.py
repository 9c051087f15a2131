"""The steps of a response with their labels, and the errors of labels against the truth.

Hard labels are compared with whether each step is right, in two ways, since a right step after a wrong one is right by
itself but seldom leads to a right answer.

    all steps                  every step with a label and a known truth
    up to the first error      without the steps after the first wrong one

Soft labels are compared with the probability of a right answer, if known, e.g. from many more completions; and hard
labels with whether that is above 0, which is what they estimate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from freeprm.core.step_metrics import Estimate, MetricName, ScoredSteps, drawn_problems, estimates, mean_estimate
from freeprm.core.steps import SPLITTERS, auto
from freeprm.errors import DataError
from freeprm.types import Metric, Rollout


class LabelledSteps(NamedTuple):
    """The texts of K steps, and K labels: true, false, or None if unknown."""

    steps: list[str]
    labels: list[bool | None]

    @property
    def first_error(self) -> int | None:
        """Index of the first step known to be wrong, or None."""
        return first_error(self.labels)

    def known(self) -> tuple[list[str], list[bool]]:
        """The steps before the first unknown label, with their labels."""
        labels: list[bool] = []
        for label in self.labels:
            if label is None:
                break
            labels.append(label)
        return self.steps[: len(labels)], labels


class JudgedResponse(NamedTuple):
    """A response with known outcome and first error."""

    correct: bool
    labelled: LabelledSteps


def judged_response(rollout: Rollout) -> JudgedResponse:
    """A response's outcome, and its steps with labels that determine the first wrong one.

    Raises:
        DataError: as `labelled_steps`; no outcome, or an unknown label before any wrong step. Equal reasons have equal
            messages, to be counted together.
    """
    if rollout.correct is None:
        raise DataError("responses without label (correct)")
    labelled = labelled_steps(rollout)
    if None in labelled.labels[: labelled.first_error]:
        raise DataError("responses with a step of unknown label and no wrong one before it")
    return JudgedResponse(rollout.correct, labelled)


def first_error(labels: Sequence[bool | None]) -> int | None:
    """Index of the first step known to be wrong, or None."""
    return next((index for index, label in enumerate(labels) if label is False), None)


def steps_of(rollout: Rollout, *, count: int | None = None) -> list[str]:
    """The texts of a response's steps: `extra["steps"]`, or else the stripped steps of a splitter.

    Args:
        rollout: the response.
        count: the number of steps, if known; the first splitter with this number is used.

    Raises:
        DataError: the response is empty, or there are not `count` steps. Equal reasons have equal messages, to be
            counted together.
    """
    own = rollout.extra.get("steps")
    if isinstance(own, Sequence) and not isinstance(own, str) and all(isinstance(step, str) for step in own):
        cuts = [list(own)]
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
    """The steps of a response with their `step_labels`, or labels from `first_error`: right before it, unknown after.

    Raises:
        DataError: there are no labels, or of another number of steps. Equal reasons have equal messages, to be counted
            together.
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


# How far labels are from the truth.

ALL, JUDGED, REFERENCE = "all steps", "up to the first error", "reference above 0"
"""Selectors of metrics."""
_HARD = {"labels": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledResponse:
    """One response's K steps."""

    problem: str
    labels: Sequence[bool | None]
    """Hard; None if unknown, as everywhere here."""
    values: Sequence[float | None]
    """Soft, 0 to 1."""
    truth: Sequence[bool | None] | None = None
    """Whether each step is right."""
    true_values: Sequence[float | None] | None = None
    """The probability of a right answer after each step."""


def label_errors(responses: Sequence[LabelledResponse], *, labeler: str, seed: int) -> list[Metric]:
    """Every error that can be measured on these responses; none without a truth.

    step_accuracy; step_precision and step_recall of wrong steps; ProcessBench's numbers for the first step labelled
    wrong (accuracy_erroneous: the share of wrong responses whose first error it is); step_auc of the soft labels;
    step_value_mae and step_value_bias, the means of |soft - true| and of soft - true over all steps but the last, which
    need no estimate.

    Args:
        responses: with labels.
        labeler: its name; `scorer` of the metrics.
        seed: of the bootstrap.
    """
    if not responses:
        return []
    units, times = drawn_problems([item.problem for item in responses], seed)
    found: dict[MetricName, Estimate | None] = {}

    def mean(metric: str, selector: str | None, steps: Sequence[_Step], amount: Callable[[_Step], float]) -> None:
        amounts = np.array([amount(step) for step in steps], dtype=float)
        owners = units[np.array([step.response for step in steps], dtype=np.int64)]
        found[MetricName(metric, selector)] = mean_estimate(amounts, owners, times)

    for selector, truth in ((ALL, _all), (JUDGED, _judged), (REFERENCE, _reachable)):
        steps = _steps([(item.labels, truth(item)) for item in responses])
        mean("step_accuracy", selector, steps, lambda step: step.label == step.true)
        mean("step_precision", selector, [s for s in steps if not s.label], lambda step: not step.true)
        mean("step_recall", selector, [s for s in steps if not s.true], lambda step: not step.label)
    found |= _first_errors(responses, seed=seed)
    values = _steps([(item.values[:-1], (item.true_values or ())[:-1]) for item in responses])
    mean("step_value_mae", None, values, lambda value: abs(value.label - value.true))
    mean("step_value_bias", None, values, lambda value: value.label - value.true)
    return [
        item.metric(name, scorer=labeler, seed=seed, group=None) for name, item in found.items() if item is not None
    ]


class _Step(NamedTuple):
    """A step's label, hard or soft, and its truth."""

    response: int
    label: float
    true: float


def _steps(sides: Sequence[tuple[Sequence[float | None], Sequence[float | None]]]) -> list[_Step]:
    """The steps with known label and truth, from the labels and truths of each response."""
    return [
        _Step(response, label, true)
        for response, (labels, truths) in enumerate(sides)
        for label, true in zip(labels, truths, strict=False)
        if label is not None and true is not None
    ]


def _all(response: LabelledResponse) -> Sequence[bool | None]:
    return response.truth or ()


def _judged(response: LabelledResponse) -> Sequence[bool | None]:
    truth = response.truth or ()
    error = first_error(truth)
    return truth if error is None else truth[: error + 1]


def _reachable(response: LabelledResponse) -> Sequence[bool | None]:
    """Whether a right answer can be reached from each step, without the last."""
    return [None if value is None else value > 0 for value in (response.true_values or ())[:-1]]


def _first_errors(responses: Sequence[LabelledResponse], *, seed: int) -> dict[MetricName, Estimate]:
    """Metrics of hard labels, and step_auc of soft ones, on responses without unknown labels."""
    judged = [item for item in responses if item.truth and None not in item.labels and None not in item.values]
    if not judged:
        return {}
    hard, soft = (
        ScoredSteps(
            step_scores=[[float(score or 0.0) for score in scores] for scores in step_scores],
            first_errors=[first_error(item.truth or ()) for item in judged],
            problems=[item.problem for item in judged],
        )
        for step_scores in ([item.labels for item in judged], [item.values for item in judged])
    )
    located = estimates(hard, thresholds=_HARD, seed=seed)
    order = MetricName("step_auc", None)
    kept = {MetricName(name.metric, None): item for name, item in located.items() if name.selector in _HARD}
    return kept | {name: item for name, item in estimates(soft, thresholds={}, seed=seed).items() if name == order}
