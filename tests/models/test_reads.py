"""A head is given the states that have just read the tokens asked for, from packed rows as from padded ones."""

import numpy as np
import pytest
import torch

import tiny
from freeprm.models.encoding import encode
from freeprm.models.packed_forward import Tree
from freeprm.models.packing import pack
from freeprm.models.reads import packed_reads, padded_reads
from freeprm.models.routes import prepare
from rounding import assert_near


@pytest.fixture(scope="module")
def encoded():
    return encode(tiny.tokenizer(), tiny.rollouts(2))


def first_feature(model, hidden):
    return hidden[:, 0]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_packed_and_padded_rows_give_the_states_of_the_plain_model(architecture, encoded):
    model = tiny.language_model(architecture)
    assert prepare(model)
    places = [np.array([item.n_response - 1, 0]) for item in encoded]
    packed = pack(encoded, least_shared=2)
    given = [
        packed_reads(model, packed, Tree(packed.segments), places, first_feature),
        padded_reads(model, encoded, places, first_feature),
    ]
    for index, item in enumerate(encoded):
        ids = torch.tensor(item.ids.tolist())[None]
        states = tiny.language_model(architecture).base_model(input_ids=ids).last_hidden_state[0, :, 0]
        for values in given:
            assert_near(values[2 * index], states[-1])
            assert_near(values[2 * index + 1], states[item.n_prompt])


def test_a_state_that_is_shared_is_given_to_the_head_once(encoded):
    model = tiny.language_model()
    assert prepare(model)
    asked = []

    def counting(model, hidden):
        asked.append(len(hidden))
        return hidden[:, 0]

    packed = pack([encoded[0], encoded[0]])
    values = packed_reads(model, packed, Tree(packed.segments), [np.array([1, 3]), np.array([3])], counting)
    assert asked == [2]
    assert values[1] == values[2]
