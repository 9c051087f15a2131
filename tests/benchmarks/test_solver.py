"""The benchmark of the embedded solver."""

import pytest

from benchmarks import solver


@pytest.mark.slow
def test_sampling_scoring_and_training_have_a_required_rate_each(well_formed):
    rows = [well_formed(row) for row in solver.measure(n_problems=4, rounds=1)]
    assert [row.peer for row in rows if row.target] == [solver.SAMPLE, solver.SCORE, solver.TRAIN]
