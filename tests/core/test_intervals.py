import numpy as np
import pytest

from freeprm.core.intervals import bootstrap, paired_difference, percentile_interval, problem_text, resample, wilson
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
