"""A tiny workload, and what every row must be."""

from collections.abc import Callable

import pytest

from benchmarks.rows import Row
from benchmarks.workloads import Workload


@pytest.fixture(scope="session")
def work() -> Workload:
    """Three responses of a few tokens through the smallest model."""
    return Workload(size="0.9M", vocabulary=300, n=3, prompt_tokens=9, response_tokens=25)


@pytest.fixture(scope="session")
def well_formed() -> Callable[[Row], Row]:
    """The row itself, if it is named and has its figures."""

    def check(row: Row) -> Row:
        assert row.name.partition("/")[2]
        assert row.unit
        if row.missing is None:
            assert row.ours is not None
            assert row.ours > 0
            assert row.peer is not None
            assert row.peer > 0
            assert row.ratio is not None
            assert row.ratio > 0
        return row

    return check
