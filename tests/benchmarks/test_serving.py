"""The benchmark of the server."""

import pytest

from benchmarks import serving
from benchmarks.rows import BenchmarkError
from benchmarks.serving import Answered, Case, measure


@pytest.mark.slow
def test_serving_has_a_row_for_each_number_of_clients(work, well_formed):
    rows = [well_formed(row) for row in measure(Case(work=work, clients=(1, 64), rounds=1))]
    assert [row.name.partition(":")[2].split()[0] for row in rows] == ["1", "64"]
    assert [row.target for row in rows] == [None, serving.TARGET]
    assert all(0 < row.details["p50_ms"] <= row.details["p99_ms"] for row in rows)


@pytest.mark.slow
def test_an_answer_that_is_not_its_responses_score_ends_it(work, monkeypatch):
    monkeypatch.setattr(serving, "_offline", lambda scorer, rollouts: [0.0] * len(rollouts))
    with pytest.raises(ExceptionGroup, match="unhandled errors") as told:
        list(measure(Case(work=work, clients=(1,), rounds=1)))
    assert told.group_contains(BenchmarkError, match="its score differs")


def test_percentiles_are_those_of_the_waits():
    waits = [second / 100 for second in range(101)]  # 0 to 1 s
    assert [Answered(1.0, waits, 0).percentile(share) for share in (0.5, 0.99)] == pytest.approx([500, 990])
