"""Clocks: turns, medians, spread; the bare matrix product."""

import time

import pytest

from benchmarks import timing
from benchmarks.timing import Rate, counted, interleaved, matmul_work, timed


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


def test_processor_time_leaves_out_what_others_take(monkeypatch):
    monkeypatch.setattr(timing, "clock", time.process_time)
    assert timed(lambda: time.sleep(0.05)) < 0.05


def test_a_failure_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        interleaved({"a": lambda: 1 / 0}, rounds=1)


def test_a_way_is_warmed_up_outside_the_clock():
    calls = []
    seconds = interleaved({"a": lambda: calls.append("a")}, rounds=2, warm_up=True)
    assert (len(calls), len(seconds["a"])) == (3, 2)


def test_ways_that_count_what_they_do_have_its_mean_a_round():
    did = iter([4, 8])
    rates = counted({"a": lambda: next(did), "b": lambda: 3}, rounds=2)
    assert {name: (rate.amount, len(rate.seconds)) for name, rate in rates.items()} == {"a": (6, 2), "b": (3, 2)}


def test_flops_of_a_product_are_two_a_multiplication():
    work, flops = matmul_work("bfloat16")
    assert flops == 4 * 2 * 2048**3  # four products of matrices of side 2,048
    assert callable(work)
