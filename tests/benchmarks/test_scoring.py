"""The benchmarks of scoring and of growth."""

import pytest
import torch

from benchmarks import scoring
from benchmarks.rows import BenchmarkError
from benchmarks.workloads import random_rollouts


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


def test_in_16_bits_the_mean_token_has_to_agree(work, monkeypatch):
    def off(model, batch, **given):
        return [torch.cat([logps[:1] + 0.5, logps[1:]]) for logps in right(model, batch, **given)]

    right = scoring.plain_logprobs
    monkeypatch.setattr(scoring, "plain_logprobs", off)
    given = (work.model(), work.model(), work.tokenizer(), random_rollouts(work))
    found = scoring.beside_plain(*given, rounds=1, mean_tolerance=0.2)  # one of some 25 tokens is off
    assert found.details["largest_difference"] == pytest.approx(0.5, abs=1e-3)
    assert 0 < found.details["mean_difference"] < 0.2
    with pytest.raises(BenchmarkError, match="mean token"):
        scoring.beside_plain(*given, rounds=1, mean_tolerance=1e-3)
    with pytest.raises(BenchmarkError, match=r"a token's log-probability in nats differs by 5\.00e-01"):
        scoring.beside_plain(*given, rounds=1)


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
