"""The benchmarks of scoring and of growth."""

import pytest

from benchmarks import scoring
from benchmarks.rows import BenchmarkError


def test_scoring_has_a_row_for_each_peer_and_the_limit(work, well_formed):
    targets = {"released scorer": 2.0, "matmul limit": 1.4, "bfloat16": 1.4}
    rows = list(scoring.measure(scoring.Case(work=work, rounds=1, peer_responses=2, targets=targets)))
    peers = [well_formed(row).name.partition(":")[0] for row in rows]
    assert peers == [
        "scoring/released scorer", "scoring/plain Hugging Face", "scoring/matmul limit",
        "scoring/bfloat16 over float32",
    ]  # fmt: skip
    assert [row.target for row in rows] == [2.0, None, 1.4, 1.4]
    assert all(row.details["largest_difference"] < scoring.TOLERANCE for row in rows)


def test_scoring_refuses_a_peer_with_other_numbers(work, monkeypatch):
    def off(model, batch, **given):
        return [logps + 0.01 for logps in right(model, batch, **given)]

    right = scoring.plain_logprobs
    monkeypatch.setattr(scoring, "plain_logprobs", off)
    with pytest.raises(BenchmarkError, match=r"log-probability in nats differs by 1\.00e-02"):
        list(scoring.measure(scoring.Case(work=work, rounds=1, peer_responses=2)))


def test_the_targets_are_those_of_the_stated_sizes():
    stated = {
        (case.work.vocabulary, case.work.n, case.work.prompt_tokens): case.targets
        for case in scoring.full()
        if case.targets
    }
    assert {key: targets["released scorer"] for key, targets in stated.items()} == {
        (32_000, 64, 150): 2.0, (128_000, 64, 150): 3.0,
    }  # fmt: skip


def test_a_row_of_growth_tells_what_was_varied(work, well_formed):
    row = well_formed(scoring.measure_growth("N", 3, work, rounds=1))
    assert (row.details["axis"], row.details["x"], row.details["meaning"]) == ("N", 3, "responses a prompt")


def test_bf16_instructions_are_known_by_their_flag():
    assert scoring.has_bf16("fpu avx512_bf16 sse")
    assert scoring.has_bf16("amx_bf16")
    assert not scoring.has_bf16("avx512f avx512_bf160")
