"""The benchmark of memory, and a peak measured in another process."""

from dataclasses import replace
from functools import partial

import pytest

from benchmarks import memory
from benchmarks.memory import can_measure, peak_mib
from benchmarks.rows import BenchmarkError
from benchmarks.training import TRL

pytestmark = pytest.mark.skipif(not can_measure(), reason="this system does not tell a process's peak")


@pytest.mark.slow
def test_scoring_and_training_take_more_than_the_weights(work, well_formed):
    pytest.importorskip("trl", minversion="1.16", reason="compares with TRL: pip install 'freeprm[test]'")
    work = replace(work, prompts=2, n=2, vocabulary=32_000)
    training = memory.training(work, TRL, objective="dpo", name="memory/training dpo, TRL")
    rows = [memory.scoring(work, name="memory/scoring, plain Hugging Face"), training]
    assert all(well_formed(row).ours > row.details["weights_mib"] for row in rows)


def test_without_trl_its_row_says_so(work, monkeypatch):
    monkeypatch.setattr(memory, "trl_version", lambda: None)
    row = memory.training(work, TRL, objective="dpo", name="memory/training dpo, TRL", target=2.0)
    assert (row.ours, row.target) == (None, 2.0)
    assert "pip install 'freeprm[bench]'" in row.missing


def test_a_peak_is_what_the_work_took_even_if_it_gave_it_back():
    filling = partial(partial, str.ljust, "", 100 << 20)  # given nothing, gives the work: 100 MiB of spaces
    assert 99 <= peak_mib(filling, threads=1) < 110  # the system counts pages in batches


def test_a_process_that_fails_is_an_error():
    failing = partial(partial, int, "no number")
    with pytest.raises(BenchmarkError, match=r"its process ended with code 1 and no figure"):
        peak_mib(failing, threads=1)
