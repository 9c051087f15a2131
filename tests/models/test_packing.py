"""A packed batch says the same as its rows, in fewer tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeprm.models.encoding import Encoded
from freeprm.models.packing import pack, packed_batches, shared, sort


def item(prompt: list[int], response: list[int]) -> Encoded:
    return Encoded(
        name="x", ids=np.array([*prompt, *response], np.int32), n_prompt=len(prompt),
        offsets=np.zeros((len(response), 2), np.int32),
    )  # fmt: skip


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=12)
batches = st.lists(st.builds(item, tokens, tokens), min_size=1, max_size=12)
"""Of three different tokens, so that much is shared by chance; prompts of unequal length, and repetitions."""


@given(batch=batches, least_shared=st.integers(1, 20))
def test_each_response_is_found_again_token_by_token(batch, least_shared):
    packed = pack(batch, least_shared=least_shared)
    for one, places in zip(batch, packed.places, strict=True):
        assert packed.targets[places].tolist() == one.ids[one.n_prompt :].tolist()
        assert packed.ids[packed.answering[places]].tolist() == one.ids[one.n_prompt :].tolist()
        assert packed.positions[packed.answering[places]].tolist() == list(range(one.n_prompt, len(one.ids)))
        assert packed.positions[packed.predictors[places]].tolist() == list(range(one.n_prompt - 1, len(one.ids) - 1))
        assert packed.ids[packed.predictors[places]].tolist() == one.ids[one.n_prompt - 1 : -1].tolist()


@given(batch=batches, least_shared=st.integers(1, 20))
def test_a_segment_continues_exactly_what_its_tokens_continue(batch, least_shared):
    packed = pack(batch, least_shared=least_shared)
    read = set()
    for segment in packed.segments:
        path = [packed.segments[part] for part in segment.ancestors] + [segment]
        assert [packed.positions[part.start] for part in path] == np.cumsum([0, *map(len_of, path[:-1])]).tolist()
        read.add(tuple(packed.ids[part.start : part.stop].tolist() for part in path).__repr__())
    assert len(read) == len(packed.segments)
    assert [segment.stop for segment in packed.segments[:-1]] == [segment.start for segment in packed.segments[1:]]
    assert packed.segments[-1].stop == len(packed)


def len_of(segment) -> int:
    return segment.stop - segment.start


@given(batch=batches)
def test_with_no_least_part_every_beginning_stands_once(batch):
    beginnings = {tuple(one.ids[:stop].tolist()) for one in batch for stop in range(1, len(one.ids) + 1)}
    assert len(pack(batch, least_shared=1)) == len(beginnings)


@given(batch=batches, least_shared=st.integers(1, 20))
def test_nothing_is_read_more_often_than_it_is_given(batch, least_shared):
    assert len(pack(batch, least_shared=least_shared)) <= sum(len(one.ids) for one in batch)


def test_a_prompt_of_enough_tokens_stands_once():
    prompt = list(range(40))
    batch = [item(prompt, [100, 101]), item(prompt, [200]), item([7, 8], [9])]
    packed = pack(batch, least_shared=32)
    # 40 of the prompt, 2 + 1 of its responses, 3 of the other.
    assert len(packed) == 46
    assert [len(segment.ancestors) for segment in packed.segments] == [0, 1, 1, 0]


def test_equal_rows_share_a_segment_however_short_they_are():
    assert len(pack([item([1], [2]), item([1], [2])], least_shared=32)) == 2


def test_a_response_may_be_the_beginning_of_another():
    packed = pack([item([1, 2], [3]), item([1, 2], [3, 4, 5])], least_shared=1)
    assert len(packed) == 5
    assert [places.tolist() for places in packed.places] == [[0], [0, 1, 2]]


def test_sorted_rows_tell_what_they_share_with_the_one_before():
    batch = [item([1, 2], [9]), item([1, 2], [3, 4]), item([1, 2], [3])]
    rows = [batch[index].ids for index in sort(batch)]
    assert shared(rows) == [0, 3, 2]
    assert shared([]) == []


@given(batch=batches, token_budget=st.integers(1, 60))
def test_batches_hold_every_row_once_within_the_budget(batch, token_budget):
    found = list(packed_batches(batch, token_budget=token_budget))
    assert sorted(row for rows in found for row in rows) == list(range(len(batch)))
    for rows in found:
        assert len(rows) == 1 or len(pack([batch[row] for row in rows], least_shared=1)) <= token_budget


@pytest.mark.parametrize("least_shared", [1, 32])
def test_a_batch_does_not_depend_on_the_order_of_its_rows(least_shared):
    batch = [item([1, 2, 3], [4, 5]), item([1, 2, 3], [6]), item([2], [2, 2])]
    one, other = pack(batch, least_shared=least_shared), pack(batch[::-1], least_shared=least_shared)
    assert one.ids.tolist() == other.ids.tolist()
    assert [places.tolist() for places in one.places] == [places.tolist() for places in other.places[::-1]]
