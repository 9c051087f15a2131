"""The benchmark of memory."""

from dataclasses import replace

import pytest

from freeprm.bench import memory
from freeprm.measurement.memory import can_measure

pytestmark = pytest.mark.skipif(not can_measure(), reason="this system does not tell a process's peak")


@pytest.mark.slow
def test_scoring_and_training_take_more_than_the_weights(work, well_formed):
    pytest.importorskip("trl", minversion="1.16", reason="compares with TRL: pip install 'freeprm[test]'")
    work = replace(work, prompts=2, n=2, vocabulary=32_000)
    rows = [memory.scoring(work), *memory.training(work, as_it_comes=False)]
    assert all(well_formed(row).ours > row.details["weights_mib"] for row in rows)
