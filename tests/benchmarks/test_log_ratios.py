"""The benchmarks of early stopping and of the free reference, and the log-ratio that they measure with."""

import pytest

from benchmarks import log_ratios
from benchmarks.log_ratios import log_ratio
from benchmarks.rows import BenchmarkError


@pytest.mark.slow
def test_tokens_and_seconds_of_scoring_and_of_drawing(well_formed):
    rows = [well_formed(row) for row in log_ratios.measure_early(n_problems=2, n=8, rounds=1)]
    assert [row.unit for row in rows] == ["tokens", "s", "tokens", "s"]
    assert rows[0].ours <= rows[0].peer


def test_another_choice_than_the_complete_ways_is_an_error():
    lowest = {"p": {0: -1.0, 1: -2.0}}
    log_ratios._check({"p": 0}, lowest)
    with pytest.raises(BenchmarkError, match="sample 1 was chosen"):
        log_ratios._check({"p": 1}, lowest)


def test_a_tie_within_rounding_may_go_either_way():
    log_ratios._check({"p": 1}, {"p": {0: -1.0, 1: -1.00001}})


@pytest.mark.slow
def test_the_stored_reference_stands_beside_one_model_and_beside_both(well_formed):
    rows = [well_formed(row) for row in log_ratios.measure_stored(n_problems=2, n=2, rounds=1)]
    assert [row.target for row in rows] == [1 / log_ratios.MOST_DEARER, None]


def test_the_log_ratio_is_loaded_with_or_without_the_solver_that_draws():
    assert log_ratio().reference is not None
    assert log_ratio(with_reference=False).reference is None


def test_the_log_ratios_rewards_are_those_of_two_models():
    score = log_ratio().score("Ann has 4 pens. How many pens does Ann have?", ["Step 1: Ann 4.\nThe answer is 4."])[0]
    assert score.reward != 0
    assert len(score.step_rewards) == len(score.steps)
