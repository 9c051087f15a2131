import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeprm.core.rewards import REWARDS, check_reward, q_values, step_rewards
from freeprm.errors import ConfigError, NonFiniteError, SpanError
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
        ([Span(0, 2), Span(1, 3)], "step 1 covers tokens 1 to 3, but the step before ends at 2"),
        ([Span(0, 1), Span(2, 3)], "step 1 covers tokens 2 to 3, but the step before ends at 1"),
        ([Span(0, 2)], "the last step ends at token 2, but the response has 3"),
        ([Span(0, 4)], "the last step ends at token 4, but the response has 3"),
    ],
)
def test_steps_that_do_not_tile_the_response_are_refused(spans, message):
    with pytest.raises(SpanError, match=message):
        step_rewards(np.zeros(3), spans)


def test_a_reward_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteError, match="the reward of token 1 is not finite"):
        step_rewards(np.array([0.0, np.nan]), [Span(0, 2)])
