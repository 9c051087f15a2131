"""Peak memory, measured in another process."""

from functools import partial

import pytest

from freeprm.errors import BenchmarkError
from freeprm.measurement.memory import can_measure, peak_mib

pytestmark = pytest.mark.skipif(not can_measure(), reason="this system does not tell a process's peak")


def test_a_peak_is_what_the_work_took_even_if_it_gave_it_back():
    filling = partial(partial, str.ljust, "", 100 << 20)  # given nothing, gives the work: 100 MiB of spaces
    assert 99 <= peak_mib(filling, threads=1) < 110  # the system counts pages in batches


def test_a_process_that_fails_is_an_error():
    failing = partial(partial, int, "no number")
    with pytest.raises(BenchmarkError, match=r"its process ended with code 1 and no figure"):
        peak_mib(failing, threads=1)
