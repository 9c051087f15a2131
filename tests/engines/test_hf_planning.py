"""Batches: nothing lost, nothing twice, nothing too large."""

import pytest

from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.planning import Limits, plan

ROOMY = Limits(max_rows=8, cache_bytes=1 << 30, bytes_per_token=100, max_new_tokens=10)


def problems(lengths: list[int], *, n: int) -> list[Wanted]:
    return [
        Wanted(problem_id=str(index), prompt="x", ids=(1,) * length, sample_idxs=tuple(range(n)))
        for index, length in enumerate(lengths)
    ]


def sizes(batches: list[list[Wanted]]) -> list[int]:
    return [sum(len(item.sample_idxs) for item in batch) for batch in batches]


@pytest.mark.parametrize("n", [1, 3, 20])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_every_sample_is_in_one_batch_longest_prompts_first(n: int, count: int):
    wanted = problems([5 + index % 7 for index in range(count)], n=n)
    batches = plan(wanted, ROOMY)
    keys = [(item.problem_id, index) for batch in batches for item in batch for index in item.sample_idxs]
    assert sorted(keys) == sorted((item.problem_id, index) for item in wanted for index in item.sample_idxs)
    lengths = [len(item.ids) for batch in batches for item in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert max(sizes(batches)) <= 8


def test_batches_are_of_one_size_and_even_in_number():
    # 3 * 6 = 18 samples, at most 8 at a time: four batches of at most ceil(18 / 4) = 5.
    assert sizes(plan(problems([4] * 3, n=6), ROOMY)) == [5, 5, 5, 3]


def test_a_batch_stays_within_the_memory_of_its_cache():
    # A row takes 100 bytes * (30 + 10 tokens) = 4,000: three fit 12,000, and at least one is drawn whatever it takes.
    tight = Limits(max_rows=8, cache_bytes=12_000, bytes_per_token=100, max_new_tokens=10)
    assert sizes(plan(problems([30] * 4, n=2), tight)) == [3, 3, 2]
    assert sizes(plan(problems([300], n=2), tight)) == [1, 1]


def test_a_batch_holds_no_more_prompt_tokens_than_are_encoded_at_once():
    # 32,768 // 10,000 = 3 prompts.
    batches = plan(
        problems([10_000] * 8, n=1), Limits(max_rows=8, cache_bytes=1 << 40, bytes_per_token=1, max_new_tokens=1)
    )
    assert [len(batch) for batch in batches] == [3, 3, 2]


def test_nothing_makes_no_batch():
    assert plan([], ROOMY) == []
