"""Groups of prompts and the room of a run: nothing lost, nothing twice, nothing too large."""

import pytest

from freeprm.engines.hf.decoding import Room, Wanted
from freeprm.engines.hf.planning import Limits, plan

ROOMY = Limits(max_samples=64, cache_bytes=1 << 30, bytes_per_token=100, max_new_tokens=10, max_length=1 << 20)


def problems(lengths: list[int], *, n: int, prefix: str = "") -> list[Wanted]:
    return [
        Wanted(problem_id=str(index), prompt="x", ids=(1,) * length, sample_idxs=tuple(range(n)), prefix=prefix)
        for index, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("n", [1, 3, 20])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_every_prompt_is_in_one_group_longest_prompts_first(n: int, count: int):
    wanted = problems([5 + index % 7 for index in range(count)], n=n)
    groups = plan(wanted, ROOMY).groups
    assert sorted(item.problem_id for group in groups for item in group) == sorted(item.problem_id for item in wanted)
    lengths = [len(item.ids) for group in groups for item in group]
    assert lengths == sorted(lengths, reverse=True)


def test_prompts_are_encoded_for_an_eighth_of_the_samples_at_a_time():
    # 64 // 8 = 8 samples: four prompts of two; and one prompt alone, however many its samples are.
    assert [len(group) for group in plan(problems([4] * 60, n=2), ROOMY).groups] == [4] * 15
    assert [len(group) for group in plan(problems([4] * 3, n=30), ROOMY).groups] == [1, 1, 1]


def test_beginnings_of_one_prompt_are_encoded_together():
    assert [len(group) for group in plan(problems([4] * 9, n=30, prefix="so"), ROOMY).groups] == [9]


def test_a_text_that_stands_alone_is_encoded_alone():
    alone = Limits(max_samples=1, cache_bytes=1 << 30, bytes_per_token=1, max_new_tokens=1, max_length=99)
    assert [len(group) for group in plan(problems([4] * 3, n=1, prefix="so"), alone).groups] == [1, 1, 1]


def test_the_room_is_as_large_as_the_memory_the_job_and_the_context_allow():
    def room(n: int, *, n_workers: int = 1, **limits: int) -> Room:
        given = {"max_samples": 8, "cache_bytes": 1 << 30, "bytes_per_token": 100, "max_new_tokens": 10}
        return plan(problems([30] * 4, n=n), Limits(**{**given, "max_length": 99, **limits}), n_workers=n_workers).room

    assert room(2) == Room(samples=8, tokens=40)
    assert room(1) == Room(samples=4, tokens=40)  # all there are
    assert room(2, max_samples=64, n_workers=3) == Room(samples=3, tokens=40)  # ceil(8 / 3)
    # A row takes 100 bytes * (30 + 10 tokens) = 4,000: three fit 12,000, and one is drawn whatever it takes.
    assert room(2, cache_bytes=12_000).samples == 3
    assert room(2, cache_bytes=1).samples == 1
    assert room(2, max_length=32).tokens == 32


def test_the_plan_does_not_depend_on_what_is_done():
    some = [
        Wanted(problem_id=item.problem_id, prompt="x", ids=item.ids, sample_idxs=(0, 1), done=frozenset({0}))
        for item in problems([9, 4, 7], n=2)
    ]
    whole, rest = plan(problems([9, 4, 7], n=2), ROOMY), plan(some, ROOMY)
    assert whole.room == rest.room
    assert [[item.ids for item in group] for group in whole.groups] == [
        [item.ids for item in group] for group in rest.groups
    ]


def test_a_group_holds_no_more_prompt_tokens_than_are_encoded_at_once():
    # 32,768 // 10,000 = 3 prompts.
    wide = Limits(max_samples=800, cache_bytes=1 << 40, bytes_per_token=1, max_new_tokens=1, max_length=1 << 20)
    assert [len(group) for group in plan(problems([10_000] * 8, n=1), wide).groups] == [1] * 8
    assert [len(group) for group in plan(problems([10_000] * 8, n=100, prefix="so"), wide).groups] == [3, 3, 2]


def test_nothing_makes_no_group():
    assert plan([], ROOMY).groups == []
