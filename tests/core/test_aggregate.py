import math

import pytest

from freeprm.core.aggregate import AGGREGATORS, aggregator
from freeprm.errors import ConfigError, DataError, NonFiniteError

SCORES = (0.5, 0.25, 1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    # 0.5 + 0.25 + 1 = 1.75; 1.75 / 3; 0.5 * 0.25 * 1 = 0.125
    [("min", 0.25), ("max", 1.0), ("sum", 1.75), ("mean", 1.75 / 3), ("last", 1.0), ("prod", 0.125)],
)
def test_an_aggregator_gives_the_number_of_its_name(name: str, expected: float):
    assert aggregator(name)(SCORES) == pytest.approx(expected)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_one_step_is_its_own_aggregate(name: str):
    assert AGGREGATORS[name]((0.3,)) == pytest.approx(0.3)


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS) - {"last"}))
def test_the_order_of_steps_does_not_matter_but_to_last(name: str):
    assert AGGREGATORS[name](SCORES) == pytest.approx(AGGREGATORS[name](SCORES[::-1]))


@pytest.mark.parametrize("name", ["min", "max", "sum", "mean", "last"])
@pytest.mark.parametrize("beta", [0.001, 40.0])
def test_the_best_of_two_does_not_depend_on_beta(name: str, beta: float):
    first, second = (-1.0, 2.0, 0.5), (0.25, -0.5, 1.0)
    function = AGGREGATORS[name]
    before = function(first) > function(second)
    assert (function([beta * s for s in first]) > function([beta * s for s in second])) is before


def test_the_sum_is_exact_where_naive_addition_is_not():
    assert AGGREGATORS["sum"]((1e16, 1.0, -1e16)) == 1.0


@pytest.mark.parametrize("name", AGGREGATORS)
def test_no_step_is_refused(name: str):
    with pytest.raises(DataError, match="without step scores"):
        AGGREGATORS[name](())


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_step(name: str, bad: float):
    with pytest.raises(NonFiniteError, match="step 1"):
        AGGREGATORS[name]((0.5, bad))


@pytest.mark.parametrize("score", [-0.01, 1.01])
def test_prod_takes_probabilities_only_and_points_to_sum(score: float):
    with pytest.raises(DataError, match=r"step 1 has score .*'sum'"):
        aggregator("prod")((0.5, score))


def test_prod_of_probabilities_is_the_sum_of_their_logarithms():
    assert math.log(aggregator("prod")(SCORES)) == pytest.approx(aggregator("sum")([math.log(s) for s in SCORES]))


def test_an_unknown_name_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match="Did you mean 'mean'"):
        aggregator("meen")
