"""Errors of step labels, by numbers counted by hand."""

import pytest

from freeprm.core.label_errors import ALL, JUDGED, REFERENCE, LabelledResponse, label_errors

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
