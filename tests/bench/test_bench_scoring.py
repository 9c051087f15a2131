"""The benchmark of scoring."""

import pytest

from freeprm.bench import scoring
from freeprm.errors import BenchmarkError
from freeprm.peers import plain_hf


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

    right = plain_hf.token_logprobs
    monkeypatch.setattr(plain_hf, "token_logprobs", off)
    with pytest.raises(BenchmarkError, match=r"differs by 1\.00e-02 nats"):
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
