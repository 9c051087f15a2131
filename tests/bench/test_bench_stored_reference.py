"""The benchmark of the free reference."""

import pytest

from freeprm.bench import stored_reference


@pytest.mark.slow
def test_the_stored_reference_stands_beside_one_model_and_beside_both(well_formed):
    rows = [well_formed(row) for row in stored_reference.measure(n_problems=2, n=2, rounds=1)]
    assert [row.target for row in rows] == [stored_reference.TARGET, None]
