"""Problems by the name of a dataset or from rows, so many of them, and what is refused."""

from typing import Any

import pytest

from freeprm.datasets._reading import limited, load_problems
from freeprm.errors import ConfigError, DataError, PluginError, RecordError
from freeprm.types import Problem


def test_load_problems_takes_dataset_names_options_and_limits():
    problems = load_problems("arithmetic", split="test", limit=5, options={"difficulty": 3})
    assert [problem.extra["level"] for problem in problems] == [3] * 5
    assert load_problems("arithmetic", split="test", limit=3, seed=1) != problems[:3]


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("arithmatic", {}, PluginError, "Did you mean 'arithmetic'"),
        ("missing.jsonl", {}, RecordError, "no such file"),
        ("arithmetic", {"difficulti": 3}, ConfigError, "Did you mean 'difficulty'"),
        ("math", {}, ConfigError, "path: "),
        ("freeprm.types:group_rollouts", {}, PluginError, "expected a dataclass"),
    ],
)
def test_load_problems_refuses_what_it_cannot_find(source: str, options: dict[str, Any], error: type, message: str):
    with pytest.raises(error, match=message):
        load_problems(source, limit=2, options=options)


def test_limited_takes_so_many_and_refuses_too_few_none_and_twins():
    problems = [Problem(problem_id=f"p{index}", prompt="?") for index in range(6)]
    assert limited(problems, None, 0) == problems
    assert len(limited(problems, 2, 0)) == 2
    with pytest.raises(DataError, match="7 problems were asked for, but there are 6"):
        limited(problems, 7, 0)
    with pytest.raises(DataError, match="'p0' is there more than once"):
        limited([*problems, problems[0]], None, 0)
    with pytest.raises(ConfigError, match="n_problems: is 0"):
        limited(problems, 0, 0)
