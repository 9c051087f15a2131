"""The benchmark of early stopping."""

import pytest

from freeprm.bench import early_stopping
from freeprm.errors import BenchmarkError


@pytest.mark.slow
def test_tokens_and_seconds_of_scoring_and_of_drawing(well_formed):
    rows = [well_formed(row) for row in early_stopping.measure(n_problems=2, n=8, rounds=1)]
    assert [row.unit for row in rows] == ["tokens", "s", "tokens", "s"]
    assert rows[0].ours <= rows[0].peer


def test_another_choice_than_the_complete_ways_is_an_error():
    lowest = {"p": {0: -1.0, 1: -2.0}}
    early_stopping._check({"p": 0}, lowest)
    with pytest.raises(BenchmarkError, match="sample 1 was chosen"):
        early_stopping._check({"p": 1}, lowest)


def test_a_tie_within_rounding_may_go_either_way():
    early_stopping._check({"p": 1}, {"p": {0: -1.0, 1: -1.00001}})
