import numpy as np
import pytest

from freeprm.core.intervals import DRAWS
from freeprm.core.localisation import Named, ScoredSteps, difference, estimates, response_areas
from freeprm.core.step_metrics import processbench

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
        Named(*name): pytest.approx(value) for name, value in expected.items()
    }


def test_responses_to_one_problem_are_drawn_together():
    # both of p's responses are erroneous, one is found at 0.4: the share is 1/2 in every draw that has p at all
    found = estimates(SCORED, thresholds={"t": 0.4}, seed=0)
    replicates = found[Named("accuracy_erroneous", "t")].replicates
    assert len(replicates) == DRAWS
    assert np.unique(replicates[~np.isnan(replicates)]).tolist() == [0.5]
    assert np.isnan(replicates).mean() == pytest.approx((2 / 3) ** 3, abs=0.04)  # p in none of three draws


def test_f1_replicates_are_undefined_where_a_draw_lacks_a_kind():
    found = estimates(SCORED, thresholds={"t": 0.4}, seed=0)
    lacking = [np.isnan(found[Named(name, "t")].replicates) for name in ("accuracy_erroneous", "accuracy_correct")]
    assert (np.isnan(found[Named("processbench_f1", "t")].replicates) == (lacking[0] | lacking[1])).all()


def test_what_is_not_defined_is_left_out():
    right_only = ScoredSteps(step_scores=[(0.5, 0.6)], first_errors=[None], problems=["p"])
    found = estimates(right_only, thresholds={"t": 0.4}, seed=0)
    assert set(found) == {Named("accuracy_correct", "t")}


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
        Named("response_auc", "min"): (3 / 8, 6),
        Named("response_auc_within_problems", "min"): (3 / 4, 2),
    }


def test_what_tells_problems_apart_moves_only_the_pooled_area():
    shift = {"p": 5.0, "q": -5.0, "r": 0.0}
    moved = [score + shift[name] for score, name in zip(AREAS["scores"]["min"], AREAS["problems"], strict=True)]
    inside = Named("response_auc_within_problems", "min")
    before = response_areas(**AREAS, seed=0)
    after = response_areas(**{**AREAS, "scores": {"min": moved}}, seed=0)
    assert after[inside].value == before[inside].value
    assert np.array_equal(after[inside].replicates, before[inside].replicates, equal_nan=True)
    assert after[Named("response_auc", "min")].value != before[Named("response_auc", "min")].value


def test_the_area_inside_problems_is_drawn_by_problem():
    replicates = response_areas(**AREAS, seed=0)[Named("response_auc_within_problems", "min")].replicates
    # p and q in some proportion: from 1/2 (q alone) to 1 (p alone), undefined where neither is drawn
    assert np.nanmin(replicates) == 0.5
    assert np.nanmax(replicates) == 1.0
    assert np.isnan(replicates).mean() == pytest.approx((1 / 3) ** 3, abs=0.02)


def test_without_both_outcomes_in_any_problem_there_is_only_the_pooled_area():
    found = response_areas({"min": [0.1, 0.2]}, correct=[False, True], problems=["p", "q"], seed=0)
    assert set(found) == {Named("response_auc", "min")}
