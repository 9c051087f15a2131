"""Errors of step labels, by numbers counted by hand."""

from typing import Any

import pytest

from freeprm.core.step_labels import (
    ALL,
    JUDGED,
    REFERENCE,
    LabelledResponse,
    first_error,
    label_errors,
    labelled_steps,
    steps_of,
)
from freeprm.errors import DataError
from freeprm.types import Rollout


def rollout(response: str, **extra: Any) -> Rollout:
    return Rollout(problem_id="a", sample_idx=0, prompt="?", response=response, extra=extra)


def test_steps_are_those_given_else_those_found():
    assert steps_of(rollout("a b\nc", steps=["a b\n", "c"])) == ["a b\n", "c"]
    assert steps_of(rollout("Step 1: a\nStep 2: b")) == ["Step 1: a", "Step 2: b"]
    assert steps_of(rollout("a\n\nb\nc")) == ["a", "b\nc"]


def test_the_number_of_labels_decides_how_a_response_is_cut():
    # `auto` cuts at the blank line; as one step, as `step_markers` has it, one label is enough.
    assert labelled_steps(rollout("a\n\nb", step_labels=[False])).steps == ["a\n\nb"]
    assert labelled_steps(rollout("a\n\nb\nc", step_labels=[True, None, False])).steps == ["a", "b", "c"]


def test_steps_come_with_their_labels():
    labelled = labelled_steps(rollout("a\nb\nc", steps=["a", "b", "c"], step_labels=[True, None, False]))
    assert labelled.labels == [True, None, False]
    assert labelled.first_error == 2
    assert labelled.known() == (["a"], [True])


@pytest.mark.parametrize(
    ("error", "labels"),
    [(None, [True, True, True]), (0, [False, None, None]), (1, [True, False, None]), (2, [True, True, False])],
)
def test_the_first_error_tells_of_itself_and_what_comes_before(error: int | None, labels: list[bool | None]):
    labelled = labelled_steps(rollout("a\nb\nc", steps=["a", "b", "c"], first_error=error))
    assert labelled.labels == labels
    assert labelled.first_error == error


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (rollout("a"), "responses without step labels"),
        (rollout("", step_labels=[]), "empty responses"),
        (
            rollout("a", steps=["a"], step_labels=[True, True]),
            "responses with another number of steps than step labels",
        ),
        (rollout("a", first_error=1), "responses whose first_error is none of their steps"),
        (rollout("a", first_error=True), "responses whose first_error is none of their steps"),
    ],
)
def test_what_is_not_known_is_refused_with_a_reason_that_can_be_counted(row: Rollout, reason: str):
    with pytest.raises(DataError, match=f"^{reason}$"):
        labelled_steps(row)


def test_an_unknown_step_is_no_error():
    assert first_error([True, None, False]) == 2
    assert first_error([True, None]) is None
    assert first_error([]) is None


# problem  labels  truth     after the first error
# p        T F F   T F T     the last step; labelled wrong though right by itself
# p        T T     T T       none
# q        T T F   F T F     two
RESPONSES = [
    LabelledResponse(problem="p", labels=[True, False, False], values=[0.5, 0, 0], truth=[True, False, True]),
    LabelledResponse(problem="p", labels=[True, True], values=[1, 1], truth=[True, True]),
    LabelledResponse(problem="q", labels=[True, True, False], values=[0.25, 0.5, 0], truth=[False, True, False]),
]


def measured(responses: list[LabelledResponse]) -> dict[tuple[str, str | None], tuple[float, int]]:
    metrics = label_errors(responses, labeler="l", seed=0)
    assert all(metric.scorer == "l" for metric in metrics)
    assert all(metric.low <= metric.value <= metric.high for metric in metrics)  # type: ignore[operator]  # never None
    return {(metric.metric, metric.selector): (metric.value, metric.count) for metric in metrics}


def test_hard_labels_are_held_against_every_step_and_against_those_up_to_the_first_error():
    found = measured(RESPONSES)
    assert found["step_accuracy", ALL] == (6 / 8, 8)  # all but p's third and q's first
    assert found["step_precision", ALL] == (2 / 3, 3)  # labelled wrong: p 2, p 3 (right), q 3
    assert found["step_recall", ALL] == (2 / 3, 3)  # wrong: p 2, q 1 (missed), q 3
    assert found["step_accuracy", JUDGED] == (4 / 5, 5)  # p 1, p 2; both of the second; q 1 (missed)
    assert found["step_precision", JUDGED] == (1.0, 1)
    assert found["step_recall", JUDGED] == (1 / 2, 2)


def test_first_errors_are_located_by_the_first_step_labelled_wrong():
    found = measured(RESPONSES)
    assert found["accuracy_erroneous", None] == (1 / 2, 2)  # p's is found; q's is said to be the third step
    assert found["accuracy_correct", None] == (1.0, 1)
    assert found["processbench_f1", None] == (pytest.approx(2 * 0.5 * 1 / 1.5), 3)


def test_soft_labels_are_ranked_on_the_steps_up_to_the_first_error():
    # Right: 0.5, 1, 1. First errors: 0 (p), 0.25 (q). All right ones stand above all first errors.
    assert measured(RESPONSES)["step_auc", None] == (1.0, 5)


def test_soft_labels_are_held_against_true_values_without_the_last_step():
    response = LabelledResponse(
        problem="p", labels=[True, False, True, True], values=[0.5, 0.0, None, 1.0], true_values=[0.75, 0.1, 0.5, 0.0]
    )
    found = measured([response])
    assert found["step_value_mae", None] == (pytest.approx((0.25 + 0.1) / 2), 2)
    assert found["step_value_bias", None] == (pytest.approx(-(0.25 + 0.1) / 2), 2)
    # Of the first three, whose values are above 0, the second is labelled wrong.
    assert found["step_accuracy", REFERENCE] == (2 / 3, 3)
    assert ("step_accuracy", ALL) not in found


def test_what_is_not_known_is_left_out():
    response = LabelledResponse(problem="p", labels=[None, True, False], values=[None, 1, 0], truth=[True, True, None])
    found = measured([response])
    assert found["step_accuracy", ALL] == (1.0, 1)
    assert ("processbench_f1", None) not in found
    assert label_errors([LabelledResponse(problem="p", labels=[True], values=[1])], labeler="l", seed=0) == []
    assert label_errors([], labeler="l", seed=0) == []


def test_intervals_are_over_problems():
    # One problem: every draw is that problem, so the interval has no width, however many steps there are.
    (metric, *_) = label_errors([RESPONSES[0]] * 5, labeler="l", seed=0)
    assert metric.count == 15
    assert metric.low == metric.value == metric.high == pytest.approx(2 / 3)
