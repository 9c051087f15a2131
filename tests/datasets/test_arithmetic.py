"""The embedded world as a dataset."""

import pytest

from freeprm.datasets.arithmetic import Arithmetic
from freeprm.errors import ConfigError
from freeprm.world.problems import parse
from freeprm.world.solutions import answer


def test_problems_have_unique_ids_answers_and_their_number_of_steps():
    problems = list(Arithmetic(difficulty=5).problems("test", limit=200, seed=0))
    assert problems[17].problem_id == "arithmetic-test-5-0-17"
    assert len({problem.problem_id for problem in problems}) == 200
    assert {problem.extra["level"] for problem in problems} == {3, 4, 5}
    for problem in problems:
        parsed = parse(str(problem.prompt))
        assert parsed is not None
        assert problem.answer == str(answer(parsed))


def test_problems_are_the_same_for_the_same_arguments_and_more_are_the_same_first():
    few = list(Arithmetic().problems("dev", limit=5, seed=1))
    assert list(Arithmetic().problems("dev", limit=20, seed=1))[:5] == few
    assert list(Arithmetic().problems("dev", limit=5, seed=2)) != few


def test_an_unknown_split_or_difficulty_is_refused():
    with pytest.raises(ConfigError, match=r"split 'validation'.*test"):
        list(Arithmetic().problems("validation", limit=1, seed=0))
    with pytest.raises(ConfigError, match="difficulty 2"):
        list(Arithmetic(difficulty=2).problems("test", limit=1, seed=0))


def test_all_of_an_endless_supply_is_refused():
    with pytest.raises(ConfigError, match="n_problems"):
        next(Arithmetic().problems("test", limit=None, seed=0))
