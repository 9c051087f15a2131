"""Rows, and finding benchmarks. No test of benchmarks asserts a time."""

from dataclasses import replace

from freeprm.bench.base import Row, faster, required
from freeprm.io.plugins import load, names
from freeprm.measurement.timing import Rate


def test_every_benchmark_is_found_by_name():
    assert {"gpu", "growth", "memory", "scoring", "solver", "training"} <= set(names("bench"))
    assert all(callable(load("bench", name)) for name in names("bench"))


def test_a_row_meets_its_target_by_its_ratio():
    row = Row(name="a/b", ours=3.0, peer=1.0, ratio=3.0, target=3.0, unit="tokens/s")
    assert row.met is True
    assert replace(row, ratio=2.9).met is False
    assert replace(row, target=None).met is None
    assert replace(row, ours=None, ratio=None, missing="no GPU").met is None


def test_rows_are_of_medians():
    ours, peer = Rate(amount=12, seconds=(1.0, 2.0, 3.0)), Rate(amount=12, seconds=(4.0, 4.0, 9.0))
    row = faster("a/b", ours=ours, peer=peer, details={"x": 1}, target=2.0)
    assert (row.ours, row.peer, row.ratio) == (6, 3, 2)  # 12 / 2, 12 / 4
    assert row.details["ours_spread"] == (4, 12)
    row = required("a/b", ours=ours, least=8, details={})
    assert (row.peer, row.ratio, row.target, row.met) == (8, 0.75, 1.0, False)
