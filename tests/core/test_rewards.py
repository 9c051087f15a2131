import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeprm.core.rewards import AGGREGATORS, REWARDS, aggregator, check_reward, q_values, step_rewards
from freeprm.errors import ConfigError, DataError, NonFiniteError, SpanError
from freeprm.types import Span

POLICY = np.array([-1.0, -2.0, -0.5])
REF = np.array([-1.5, -1.0, -0.5])


def test_the_reward_is_beta_times_the_log_ratio():
    assert REWARDS["with-reference"](POLICY, REF, 0.5).tolist() == [0.25, -0.5, 0.0]


def test_without_reference_the_reward_is_beta_times_the_policys_log_probability():
    assert REWARDS["without-reference"](POLICY, REF, 0.5).tolist() == [-0.5, -1.0, -0.25]


def test_the_reference_alone_rewards_what_it_finds_likely():
    assert REWARDS["reference-only"](POLICY, REF, 0.5).tolist() == [-0.75, -0.5, -0.25]


def test_an_unknown_reward_is_refused():
    assert check_reward("with-reference") == "with-reference"
    with pytest.raises(ConfigError, match="expected one of with-reference, without-reference, reference-only"):
        check_reward("log-ratio")


def test_a_step_earns_the_sum_of_its_tokens():
    found = step_rewards(np.array([1.0, 2.0, -4.0, 0.5]), [Span(0, 2), Span(2, 2), Span(2, 4)])
    assert found.tolist() == [3.0, 0.0, -3.5]


def test_q_values_are_running_sums():
    assert q_values(np.array([3.0, 0.0, -3.5])).tolist() == [3.0, 3.0, -0.5]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.data())
def test_step_rewards_sum_to_the_responses_reward_however_it_is_cut(rewards, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rewards)), max_size=5)))
    spans = [Span(start, stop) for start, stop in zip([0, *cuts], [*cuts, len(rewards)], strict=True)]
    steps = step_rewards(np.array(rewards), spans)
    assert steps.sum() == pytest.approx(sum(rewards), abs=1e-9)
    assert q_values(steps)[-1] == pytest.approx(sum(rewards), abs=1e-9)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([Span(0, 2), Span(1, 3)], "step 1 starts at 1 but step 0 ends at 2"),
        ([Span(0, 1), Span(2, 3)], "step 1 starts at 2 but step 0 ends at 1"),
        ([Span(0, 2)], "the last step ends at 2 but the response at 3"),
        ([Span(0, 4)], "the last step ends at 4 but the response at 3"),
    ],
)
def test_steps_that_do_not_tile_the_response_are_refused(spans, message):
    with pytest.raises(SpanError, match=message):
        step_rewards(np.zeros(3), spans)


def test_a_reward_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteError, match="the reward of token 1 is not finite"):
        step_rewards(np.array([0.0, np.nan]), [Span(0, 2)])


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
