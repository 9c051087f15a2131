"""A log-ratio of the embedded solvers."""

from freeprm.measurement.embedded import log_ratio


def test_it_is_loaded_with_or_without_the_solver_that_draws():
    assert log_ratio().reference is not None
    assert log_ratio(with_reference=False).reference is None


def test_its_rewards_are_those_of_two_models():
    score = log_ratio().score("Ann has 4 pens. How many pens does Ann have?", ["Step 1: Ann 4.\nThe answer is 4."])[0]
    assert score.reward != 0
    assert len(score.step_rewards) == len(score.steps)
