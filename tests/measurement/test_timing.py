"""Clocks: turns, medians, spread."""

import pytest

from freeprm.measurement.timing import Rate, interleaved, timed


def test_a_rate_is_of_the_median_round():
    rate = Rate(amount=60, seconds=(3.0, 1.0, 2.0))
    assert rate.median == 30  # 60 / 2
    assert rate.best == 60  # 60 / 1
    assert rate.spread == (20, 60)  # 60 / 3, 60 / 1


def test_ways_take_turns_and_every_other_round_runs_backwards():
    calls = []
    seconds = interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=3)
    assert "".join(calls) == "abc" + "cba" + "abc"
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_time_is_above_zero():
    assert timed(lambda: sum(range(1000))) > 0


def test_a_failure_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        interleaved({"a": lambda: 1 / 0}, rounds=1)
