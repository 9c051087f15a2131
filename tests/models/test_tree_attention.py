"""A packed row against the same model reading each response by itself; more in test_logprobs.py."""

import pytest
import torch

import freeprm.models.tree_attention as module
import tiny
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens
from freeprm.models.packing import pack
from freeprm.models.padded import padded_logprobs
from freeprm.models.readout import inputs
from freeprm.models.tree_attention import Tree
from freeprm.models.ways import prepare
from rounding import assert_near

ARCHITECTURES = ["llama", "mistral, sliding window", "gemma2", "gpt2"]


@pytest.fixture(scope="module")
def encoded():
    return encode(tiny.tokenizer(), tiny.rollouts(3))


def read(model, encoded, *, least_shared):
    packed = pack(encoded, least_shared=least_shared)
    tree = Tree(packed.segments)
    answers = model(**inputs(packed, tree, torch.device("cpu")))
    return torch.cat([answers[torch.from_numpy(place)] for place in packed.places]), tree


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("least_shared", [1, 4, 32])
def test_what_is_shared_changes_nothing(architecture, least_shared, encoded):
    model = tiny.language_model(architecture)
    expected = padded_logprobs(model, encoded)
    assert prepare(model)
    found, tree = read(model, encoded, least_shared=least_shared)
    assert_near(found, expected)
    assert tree.calls == model.config.num_hidden_layers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_long_segments_are_attended_in_parts_to_the_same_effect(architecture, encoded, monkeypatch):
    model = tiny.language_model(architecture)
    expected = padded_logprobs(model, encoded)
    prepare(model)
    monkeypatch.setitem(module._QUERIES, "cpu", 5)
    found, _ = read(model, encoded, least_shared=4)
    assert_near(found, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_taught_model_reads_and_writes_as_before(architecture, encoded):
    model, plain = tiny.language_model(architecture), tiny.language_model(architecture)
    assert prepare(model)
    ids = torch.tensor(encoded[0].ids.tolist())[None]
    assert_near(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert model.generate(ids, **settings).tolist() == plain.generate(ids, **settings).tolist()


def test_what_a_layer_asks_beyond_this_attention_is_noticed(encoded):
    model = tiny.language_model()
    prepare(model)
    packed = pack(encoded)
    tree = Tree(packed.segments)
    model(**inputs(packed, tree, torch.device("cpu")), s_aux=torch.zeros(4))
    assert tree.calls == 0


def test_scores_keep_to_the_context_of_a_sliding_window(encoded):
    model = tiny.language_model("mistral, sliding window")
    wide = tiny.language_model("mistral, sliding window")
    wide.config.sliding_window = None
    narrow, open_ = (torch.cat(score_tokens(one, encoded)) for one in (model, wide))
    assert (narrow - open_).abs().max() > 1e-3
