import numpy as np
import pytest

from freeprm.core.intervals import DRAWS
from freeprm.core.step_metrics import (
    MetricName,
    ScoredSteps,
    area_within_problems,
    calibration_error,
    difference,
    estimates,
    first_error_found,
    fit_threshold,
    found,
    harmonic,
    judged_steps,
    predict_first_error,
    processbench,
    response_areas,
)
from freeprm.errors import DataError, NonFiniteError

SCORES = [
    (0.9, 0.2, 0.1),  # error at 1, found by thresholds in (0.2, 0.9]
    (0.3, 0.6),  # error at 1, never found: step 0 is lower
    (0.4, 0.8),  # no error, so judged by thresholds up to 0.4
    (0.7,),  # no error, up to 0.7
]
ERRORS = [1, 1, None, None]


def test_the_first_step_below_the_threshold_is_named():
    assert predict_first_error((0.9, 0.2, 0.1), 0.5) == 1
    assert predict_first_error((0.9, 0.2, 0.1), 0.15) == 2
    assert predict_first_error((0.9, 0.2, 0.1), 0.1) is None  # at the threshold is not below it


@pytest.mark.parametrize("threshold", np.linspace(0, 1, 41))
def test_found_is_prediction_equal_to_truth(threshold: float):
    expected = [predict_first_error(s, threshold) == e for s, e in zip(SCORES, ERRORS, strict=True)]
    assert found(SCORES, ERRORS, threshold).tolist() == expected


def test_f1_is_the_harmonic_mean_of_the_two_accuracies():
    # at 0.5: first of two erroneous found; of two correct, 0.4 < 0.5 is flagged
    assert processbench(SCORES, ERRORS, 0.5) == pytest.approx((0.5, 0.5, 0.5))
    # at 0.4: one of two erroneous, both correct: 2 * 0.5 * 1 / 1.5
    assert processbench(SCORES, ERRORS, 0.4) == pytest.approx((2 / 3, 0.5, 1.0))


def test_f1_of_nothing_right_is_zero():
    assert processbench([(0.5, 0.1), (0.2,)], [0, None], 0.3).f1 == 0.0
    assert harmonic(np.array(0.0), np.array(0.0)) == 0.0


def test_the_fitted_threshold_is_in_the_middle_of_the_best_range():
    # F1 by range: (.2, .3] and (.3, .4] find one of two and clear both: 2/3; the best range is (.2, .4], its middle .3
    assert fit_threshold(SCORES, ERRORS) == pytest.approx((0.3, 2 / 3))


def test_no_threshold_does_better_than_the_fitted_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = [tuple(rng.integers(0, 8, rng.integers(1, 5)) / 7) for _ in range(12)]
        errors = [None if i < 4 else int(rng.integers(0, len(s))) for i, s in enumerate(scores)]
        fitted = fit_threshold(scores, errors)
        assert processbench(scores, errors, fitted.value).f1 == pytest.approx(fitted.f1)
        tried = [processbench(scores, errors, t).f1 for t in np.linspace(-0.05, 1.05, 200)]
        assert max(tried) <= fitted.f1 + 1e-12


@pytest.mark.parametrize("beta", [0.01, 100.0])
def test_the_threshold_scales_with_beta_and_f1_does_not(beta: float):
    scaled = fit_threshold([tuple(beta * s for s in row) for row in SCORES], ERRORS)
    assert scaled == pytest.approx((0.3 * beta, 2 / 3))


def test_scores_a_rounding_apart_are_still_separated():
    low = 0.1
    high = np.nextafter(low, 1)
    fitted = fit_threshold([(low,), (high,)], [0, None])
    assert fitted.f1 == 1.0
    assert processbench([(low,), (high,)], [0, None], fitted.value).f1 == 1.0


def test_scores_that_are_all_equal_give_a_threshold_all_the_same():
    assert fit_threshold([(0.5,), (0.5,)], [0, None]) == (0.5, 0.0)


def test_first_error_found_takes_the_lowest_step_of_erroneous_responses():
    assert first_error_found([(0.9, 0.2, 0.3), (0.1, 0.5), (0.7,)], [1, 1, None]).tolist() == [True, False]
    assert first_error_found([(0.2, 0.2)], [0]).tolist() == [True]  # the first on ties


def test_steps_after_the_first_error_are_not_judged():
    steps = judged_steps([(0.9, 0.2, 0.1), (0.4, 0.8)], [1, None])
    assert steps.scores.tolist() == [0.9, 0.2, 0.4, 0.8]
    assert steps.right.tolist() == [True, False, True, True]
    assert steps.responses.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("scores", "error"), [((0.1, 0.2), 2), ((0.1, 0.2), -1), ((), None)])
def test_a_first_error_that_is_no_step_is_refused(scores: tuple[float, ...], error: int | None):
    with pytest.raises(DataError, match=f"response 1 has {len(scores)} step scores and first_error {error}"):
        found([(0.5,), scores], [None, error], 0.5)


def test_nan_is_refused():
    with pytest.raises(NonFiniteError, match="response 0"):
        found([(0.5, float("nan"))], [None], 0.5)


@pytest.mark.parametrize("errors", [[None, None], [0, 0]])
def test_f1_wants_responses_with_and_without_errors(errors: list[int | None]):
    with pytest.raises(DataError, match="some of both"):
        fit_threshold([(0.1,), (0.2,)], errors)
    with pytest.raises(DataError, match="some of both"):
        processbench([(0.1,), (0.2,)], errors, 0.15)


SCORED = ScoredSteps(
    step_scores=[(0.9, 0.2, 0.1), (0.3, 0.6), (0.4, 0.8), (0.7,)],
    first_errors=[1, 1, None, None],
    problems=["p", "p", "q", "r"],
)


def test_estimates_are_the_plain_metrics():
    found = estimates(SCORED, thresholds={"threshold=given": 0.4}, seed=0)
    f1, erroneous, correct = processbench(SCORED.step_scores, SCORED.first_errors, 0.4)
    expected = {
        ("processbench_f1", "threshold=given"): (f1, 4),
        ("accuracy_erroneous", "threshold=given"): (erroneous, 2),
        ("accuracy_correct", "threshold=given"): (correct, 2),
        ("first_error_accuracy", None): (0.0, 2),  # the lowest steps are 2 and 0, the errors 1 and 1
        # right .9 .3 .4 .8 .7 against wrong .2 .6: all five beat .2; .9, .8, .7 beat .6
        ("step_auc", None): (8 / 10, 7),
    }
    assert {name: (estimate.value, estimate.n_items) for name, estimate in found.items()} == {
        MetricName(*name): pytest.approx(value) for name, value in expected.items()
    }


def test_responses_to_one_problem_are_drawn_together():
    # both of p's responses are erroneous, one is found at 0.4: the share is 1/2 in every draw that has p at all
    found = estimates(SCORED, thresholds={"t": 0.4}, seed=0)
    replicates = found[MetricName("accuracy_erroneous", "t")].replicates
    assert len(replicates) == DRAWS
    assert np.unique(replicates[~np.isnan(replicates)]).tolist() == [0.5]
    assert np.isnan(replicates).mean() == pytest.approx((2 / 3) ** 3, abs=0.04)  # p in none of three draws


def test_f1_replicates_are_undefined_where_a_draw_lacks_a_kind():
    found = estimates(SCORED, thresholds={"t": 0.4}, seed=0)
    lacking = [np.isnan(found[MetricName(name, "t")].replicates) for name in ("accuracy_erroneous", "accuracy_correct")]
    assert (np.isnan(found[MetricName("processbench_f1", "t")].replicates) == (lacking[0] | lacking[1])).all()


def test_what_is_not_defined_is_left_out():
    right_only = ScoredSteps(step_scores=[(0.5, 0.6)], first_errors=[None], problems=["p"])
    found = estimates(right_only, thresholds={"t": 0.4}, seed=0)
    assert set(found) == {MetricName("accuracy_correct", "t")}


def test_a_scorer_does_not_differ_from_itself():
    first, second = (estimates(SCORED, thresholds={"t": 0.4}, seed=3) for _ in range(2))
    for name, estimate in first.items():
        gap = difference(estimate, second[name])
        assert gap.value == 0.0
        assert (np.nan_to_num(gap.replicates) == 0.0).all()


AREAS = {
    "scores": {"min": [0.9, 0.8, 0.1, 0.2, 0.3, 0.0, 1.0]},
    "correct": [True, False, True, False, True, True, None],
    "problems": ["p", "p", "q", "q", "q", "r", "r"],
}


def test_areas_of_responses_are_pooled_and_inside_problems():
    found = response_areas(**AREAS, seed=0)
    # pooled: right .9 .1 .3 .0 against wrong .8 .2; inside: 1 of p, 1/2 of q; r lacks a wrong one that is graded
    assert {name: (estimate.value, estimate.n_items) for name, estimate in found.items()} == {
        MetricName("response_auc", "min"): (3 / 8, 6),
        MetricName("response_auc_within_problems", "min"): (3 / 4, 2),
    }


def test_what_tells_problems_apart_moves_only_the_pooled_area():
    shift = {"p": 5.0, "q": -5.0, "r": 0.0}
    moved = [score + shift[name] for score, name in zip(AREAS["scores"]["min"], AREAS["problems"], strict=True)]
    inside = MetricName("response_auc_within_problems", "min")
    before = response_areas(**AREAS, seed=0)
    after = response_areas(**{**AREAS, "scores": {"min": moved}}, seed=0)
    assert after[inside].value == before[inside].value
    assert np.array_equal(after[inside].replicates, before[inside].replicates, equal_nan=True)
    assert after[MetricName("response_auc", "min")].value != before[MetricName("response_auc", "min")].value


def test_the_area_inside_problems_is_drawn_by_problem():
    replicates = response_areas(**AREAS, seed=0)[MetricName("response_auc_within_problems", "min")].replicates
    # p and q in some proportion: from 1/2 (q alone) to 1 (p alone), undefined where neither is drawn
    assert np.nanmin(replicates) == 0.5
    assert np.nanmax(replicates) == 1.0
    assert np.isnan(replicates).mean() == pytest.approx((1 / 3) ** 3, abs=0.02)


def test_without_both_outcomes_in_any_problem_there_is_only_the_pooled_area():
    found = response_areas({"min": [0.1, 0.2]}, correct=[False, True], problems=["p", "q"], seed=0)
    assert set(found) == {MetricName("response_auc", "min")}


def test_calibration_is_the_mean_distance_of_chances_from_what_came_true():
    # Bin 0.1 to 0.2: 0.15 - 0 and 0.15 - 1, together -0.7; bin 0.9 to 1: 0.95 - 1. (0.7 + 0.05) / 3 = 0.25.
    found = calibration_error([0.15, 0.15, 0.95], correct=[False, True, True], problems=["a", "b", "a"], seed=0)
    assert found is not None
    assert found.value == pytest.approx(0.25)
    assert found.replicates.shape == (2000,)
    # One in four comes true of what has a chance of a quarter.
    quarter = calibration_error([0.25] * 4, correct=[True, False, False, False], problems=list("abcd"), seed=0)
    assert quarter is not None
    assert quarter.value == pytest.approx(0.0)
    assert calibration_error([], correct=[], problems=[], seed=0) is None


def test_the_area_inside_problems_is_that_of_the_response_areas():
    scores, correct, problems = [0.1, 0.9, 0.3, 0.2, 0.5], [False, True, False, True, None], list("aabbb")
    alone = area_within_problems(scores, correct=correct, problems=problems, seed=1)
    among = response_areas({"min": scores}, correct=correct, problems=problems, seed=1)
    assert alone is not None
    assert alone.value == among[MetricName("response_auc_within_problems", "min")].value == 0.5  # 1 in a, 0 in b
