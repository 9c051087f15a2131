"""Samples that begin alike share what is read, and make room as they end; what they become is the engine's test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from freeprm.engines.base import SamplingParams
from freeprm.engines.hf.cache import Rows
from freeprm.engines.hf.decoding import Room, Wanted, _parted, decode
from freeprm.models.backbone import load_backbone


def wanted(name: str, *ids: int, n: int) -> Wanted:
    return Wanted(problem_id=name, prompt=name, ids=ids, sample_idxs=tuple(range(n)))


@pytest.mark.parametrize("config", ["LlamaConfig", "MistralConfig"])
def test_each_text_is_read_once_however_many_samples_begin_with_it(
    save_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, config: str
):
    backbone = load_backbone(str(save_tiny(config, **({"sliding_window": 8} if config == "MistralConfig" else {}))))
    texts: list[int] = []
    read = Rows.read
    monkeypatch.setattr(Rows, "read", lambda self, tokens: (texts.append(len(tokens)), read(self, tokens))[1])
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
