import numpy as np
import pytest

from freeprm.core.intervals import (
    auc,
    bootstrap,
    paired_difference,
    percentile_interval,
    problem_text,
    resample,
    unit_aucs,
    weighted_auc,
    wilson,
)
from freeprm.errors import DataError, NonFiniteError


def test_every_draw_takes_as_many_problems_as_there_are():
    times = resample(30, seed=1, draws=50)
    assert times.shape == (50, 30)
    assert (times.sum(axis=1) == 30).all()


def test_draws_repeat_with_their_seed():
    first = resample(30, seed=1).copy()
    resample.cache_clear()
    assert (resample(30, seed=1) == first).all()
    assert (resample(30, seed=2) != first).any()


def test_the_value_is_the_mean_and_lies_inside():
    value, low, high = bootstrap([0.0, 0.0, 1.0, 1.0, 1.0, 0.5])
    assert value == pytest.approx(3.5 / 6)
    assert low <= value <= high


def test_the_interval_is_that_of_the_normal_approximation_where_that_holds():
    values = np.repeat([0.0, 1.0], [120, 280])
    value, low, high = bootstrap(values)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 400)  # standard error of a proportion of 0.7 from 400
    assert (low, high) == pytest.approx((value - half, value + half), abs=0.006)


def test_equal_values_have_an_interval_without_width():
    assert bootstrap([0.25] * 10) == pytest.approx((0.25, 0.25, 0.25))


def test_a_paired_difference_cancels_what_both_share():
    hard = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    value, low, high = paired_difference(hard, hard)
    assert (value, low, high) == (0.0, 0.0, 0.0)
    assert bootstrap(hard).high - bootstrap(hard).low > 0.1


def test_a_paired_difference_is_the_bootstrap_of_differences():
    a, b = np.array([1.0, 0.5, 0.0, 1.0]), np.array([0.0, 0.5, 0.5, 1.0])
    assert paired_difference(a, b, seed=4) == bootstrap(a - b, seed=4)
    assert paired_difference(a, b).value == pytest.approx(-paired_difference(b, a).value)


def test_a_paired_difference_wants_the_same_problems():
    with pytest.raises(DataError, match="2 and 3 values"):
        paired_difference([0, 1], [0, 1, 1])


def test_nothing_and_nan_are_refused():
    with pytest.raises(DataError, match="at least one problem"):
        bootstrap([])
    with pytest.raises(NonFiniteError):
        bootstrap([0.0, np.nan])


def test_wilson_is_newcombes_example():
    # Newcombe 1998, Table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611
    assert wilson(81, 263) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.0, 0.1611), abs=5e-5)


def test_wilson_is_symmetric_in_success_and_failure():
    value, low, high = wilson(3, 10)
    assert wilson(7, 10) == pytest.approx((1 - value, 1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes: int, count: int):
    with pytest.raises(DataError):
        wilson(successes, count)


def test_replicates_with_nothing_to_measure_are_left_out():
    assert percentile_interval(0.5, np.array([0.2, np.nan, 0.2])) == (0.5, 0.2, 0.2)
    with pytest.raises(DataError, match="more responses"):
        percentile_interval(0.5, np.array([np.nan]))


def test_a_problem_is_its_words():
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is\n x²?"})
    assert problem_text(turns) == problem_text("what  is x2? ") == "what is x2?"
    assert problem_text("What is x?") != problem_text("What is y?")


def by_pairs(scores, positive) -> float:
    won = [(p > q) + (p == q) / 2 for p in scores[positive] for q in scores[~positive]]
    return float(np.mean(won))


def test_auc_counts_pairs_and_halves_ties():
    # positives 0.9, 0.5; negatives 0.5, 0.1: three pairs won, one tied
    assert auc([0.9, 0.5, 0.5, 0.1], [True, True, False, False]) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_auc_is_the_mean_over_all_pairs(share: float):
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60) / 5, rng.random(60) < share
    assert auc(scores, positive) == pytest.approx(by_pairs(scores, positive))


def test_equal_scores_say_nothing():
    assert auc([1.0] * 5, [True, False, True, False, False]) == 0.5


def test_auc_does_not_depend_on_scale_and_turns_with_the_sign():
    rng = np.random.default_rng(1)
    scores, positive = rng.normal(size=50), rng.random(50) < 0.5
    assert auc(0.001 * scores - 7, positive) == pytest.approx(auc(scores, positive))
    assert auc(-scores, positive) == pytest.approx(1 - auc(scores, positive))


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_weighted_auc_counts_an_item_as_often_as_its_unit_was_drawn(share: float):
    rng = np.random.default_rng(2)
    scores, positive, units = rng.integers(0, 9, 80) / 8, rng.random(80) < share, rng.integers(0, 10, 80)
    times = resample(10, seed=0, draws=20)
    for row, replicate in zip(times, weighted_auc(scores, positive, units, times), strict=True):
        items = np.repeat(np.arange(80), row[units].astype(int))
        assert replicate == pytest.approx(by_pairs(scores[items], positive[items]))


def test_a_draw_with_one_class_is_nan():
    times = np.array([[2.0, 0.0], [1.0, 1.0]])
    assert weighted_auc([0.9, 0.1], [True, False], [0, 1], times) == pytest.approx([np.nan, 1.0], nan_ok=True)


def test_one_class_has_no_auc():
    with pytest.raises(DataError, match="2 positives and 0 negatives"):
        auc([0.1, 0.2], [True, True])


def test_nan_is_refused():
    with pytest.raises(NonFiniteError):
        auc([0.1, np.nan], [True, False])


def test_areas_inside_units_are_those_of_their_items_alone():
    rng = np.random.default_rng(0)
    scores, positive, units = rng.integers(0, 5, 60), rng.random(60) < 0.4, rng.integers(0, 6, 60)
    found = unit_aucs(scores, positive, units, 7)
    for unit in range(6):
        mine = units == unit
        assert found[unit] == auc(scores[mine], positive[mine])
    assert np.isnan(found[6])  # of which there is no item
    assert np.isnan(unit_aucs([1.0, 2.0], [True, True], [0, 0], 1)).all()
