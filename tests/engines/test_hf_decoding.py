"""Samples that begin alike share what is read, and make room as they end; what they become is the engine's test.

Groups of prompts and the room of a run: nothing lost, nothing twice, nothing too large.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from freeprm.engines.base import SamplingParams
from freeprm.engines.hf.cache import CachedRows
from freeprm.engines.hf.decoding import DrawingLimits, Room, Wanted, _parted, decode, plan
from freeprm.models.loading import load_backbone


def wanted(name: str, *ids: int, n: int) -> Wanted:
    return Wanted(problem_id=name, prompt=name, ids=ids, sample_idxs=tuple(range(n)))


@pytest.mark.parametrize("config", ["LlamaConfig", "MistralConfig"])
def test_each_text_is_read_once_however_many_samples_begin_with_it(
    save_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, config: str
):
    backbone = load_backbone(str(save_tiny(config, **({"sliding_window": 8} if config == "MistralConfig" else {}))))
    texts: list[int] = []
    read = CachedRows.read
    monkeypatch.setattr(CachedRows, "read", lambda self, tokens: (texts.append(len(tokens)), read(self, tokens))[1])
    group = [wanted("0", 4, 5, n=24), wanted("1", 7, 8, 9, n=24)]
    params = SamplingParams(temperature=0.4, max_new_tokens=12)
    found = list(decode(backbone, [group], params=params, room=Room(samples=48, tokens=15)))
    assert len(found) == 48
    going_on = [
        {(item.problem_id, (item.token_ids or ())[:n]) for item in found if item.n_generated_tokens > n}
        for n in range(1, 12)
    ]
    assert texts == [len(different) for different in going_on if different]
    assert sum(texts) < 0.8 * sum(item.n_generated_tokens for item in found)


def test_a_sample_that_ends_makes_room_for_the_next_one(save_tiny: Callable[..., Path]):
    backbone = load_backbone(str(save_tiny()))
    groups = [[wanted(str(index), 4, 5 + index, n=5)] for index in range(6)]
    params = SamplingParams(temperature=1.0, max_new_tokens=20)
    begun, counts = [], []

    def taken():
        for group in groups:
            begun.append(group[0].problem_id)
            yield group

    ends = []  # for each sample in the order they end: groups that were begun by then
    room = Room(samples=8, tokens=22)
    lengths = {}
    for sampled in decode(backbone, taken(), params=params, room=room, count=counts.append):
        ends.append(len(begun))
        lengths[sampled.problem_id, sampled.sample_idx] = sampled.n_generated_tokens
    assert len(lengths) == 30
    assert sum(counts) == sum(lengths.values())
    assert max(counts) == 8  # as many as there is room for, all the time that there are others
    assert counts.index(max(counts)) == 0
    assert ends[0] == 2  # groups of five: the second one waits with two of its samples
    assert ends[-10] == 6
    # 8 at a time, and few at the end: fewer passes than rounds of 8 that wait for their longest, 4 * 20.
    assert len(counts) < sum(lengths.values()) / 8 + 20


def test_what_is_done_is_not_drawn_and_the_rest_is_the_same_to_the_bit(save_tiny: Callable[..., Path]):
    backbone = load_backbone(str(save_tiny()))
    params = SamplingParams(temperature=1.0, max_new_tokens=20, logprobs=True)
    group = [wanted("a", 4, 5, 6, n=9), wanted("b", 7, n=9)]
    room = Room(samples=17, tokens=23)
    whole = {(one.problem_id, one.sample_idx): one for one in decode(backbone, [group], params=params, room=room)}
    done = frozenset(range(1, 9))
    for changed in ([replace(group[0], done=done), group[1]], [replace(item, done=done) for item in group]):
        rest = list(decode(backbone, [changed], params=params, room=room))
        assert len(rest) == sum(len(set(item.sample_idxs) - item.done) for item in changed)
        assert all(one == whole[one.problem_id, one.sample_idx] for one in rest)


def test_texts_part_where_samples_go_on_with_other_tokens():
    # Sample:            0  1  2  3  4  5
    texts = torch.tensor([0, 0, 0, 2, 2, 3])  # nobody goes on with text 1
    tokens = torch.tensor([7, 8, 7, 7, 7, 0])
    parents, last, rows = _parted(texts, tokens)
    # Four texts: 0 + 7 keeps row 0, 2 + 7 row 2, 3 + 0 row 3; 0 + 8 takes the row of text 1.
    assert parents.tolist() == [0, 0, 2, 3]
    assert last.tolist() == [7, 8, 7, 0]
    assert rows.tolist() == [0, 1, 0, 2, 2, 3]


@pytest.mark.parametrize("seed", range(20))
def test_parted_texts_are_different_and_are_what_their_samples_say(seed: int):
    generator = torch.Generator().manual_seed(seed)
    n_texts = int(torch.randint(1, 9, (), generator=generator))
    texts = torch.randint(0, n_texts, (12,), generator=generator)
    tokens = torch.randint(0, 3, (12,), generator=generator)
    parents, last, rows = _parted(texts, tokens)
    said = list(zip(texts.tolist(), tokens.tolist(), strict=True))
    assert [(parents[row].item(), last[row].item()) for row in rows.tolist()] == said
    assert len(parents) == len(set(said))
    for row in range(len(parents)):
        assert row not in texts.tolist() or parents[row] == row  # nothing is moved without need


ROOMY = DrawingLimits(max_samples=64, cache_bytes=1 << 30, bytes_per_token=100, max_new_tokens=10, max_length=1 << 20)


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
    alone = DrawingLimits(max_samples=1, cache_bytes=1 << 30, bytes_per_token=1, max_new_tokens=1, max_length=99)
    assert [len(group) for group in plan(problems([4] * 3, n=1, prefix="so"), alone).groups] == [1, 1, 1]


def test_the_room_is_as_large_as_the_memory_the_job_and_the_context_allow():
    def room(n: int, *, n_workers: int = 1, **limits: int) -> Room:
        given = {"max_samples": 8, "cache_bytes": 1 << 30, "bytes_per_token": 100, "max_new_tokens": 10}
        return plan(
            problems([30] * 4, n=n), DrawingLimits(**{**given, "max_length": 99, **limits}), n_workers=n_workers
        ).room

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
    wide = DrawingLimits(max_samples=800, cache_bytes=1 << 40, bytes_per_token=1, max_new_tokens=1, max_length=1 << 20)
    assert [len(group) for group in plan(problems([10_000] * 8, n=1), wide).groups] == [1] * 8
    assert [len(group) for group in plan(problems([10_000] * 8, n=100, prefix="so"), wide).groups] == [3, 3, 2]


def test_nothing_makes_no_group():
    assert plan([], ROOMY).groups == []
