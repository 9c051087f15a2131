"""A packed row against the same model reading each response by itself; more in test_logprobs.py.

Also which models are patched to read packed rows, and that the others are left alone.
"""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn
from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

import freeprm.models.packed_forward as module
import tiny
from freeprm.models.batching import padded_logprobs
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens, token_logprobs
from freeprm.models.packed_forward import Reads, Tree, core, inputs, is_patched, patch_forward
from freeprm.models.packing import pack
from freeprm.models.routes import prepare
from rounding import assert_near, near

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
    monkeypatch.setattr(module, "_CPU_QUERIES", 5)
    found, _ = read(model, encoded, least_shared=4)
    assert_near(found, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_patched_model_reads_and_writes_as_before(architecture, encoded):
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


def test_a_model_is_tried_once(encoded):
    model = tiny.language_model()
    assert is_patched(model) is None
    assert prepare(model)
    assert is_patched(model)
    assert patch_forward(model, examine=lambda model: pytest.fail("tried again"))


def test_a_model_that_answers_otherwise_is_left_as_it_was(encoded):
    model = tiny.language_model()
    before = model.config._attn_implementation
    assert not patch_forward(model, examine=lambda model: False)
    assert "forward" not in vars(model)
    assert model.config._attn_implementation == before
    assert_near(token_logprobs(model, encoded), padded_logprobs(tiny.language_model(), encoded))


def test_a_deep_copy_answers_with_its_own_weights(encoded):
    model = tiny.language_model()
    assert prepare(model)
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    # Of weights that are all zero every token is as likely as any other.
    assert token_logprobs(copy, encoded).unique().tolist() == pytest.approx([-math.log(model.config.vocab_size)])
    assert_near(token_logprobs(model, encoded), padded_logprobs(tiny.language_model(), encoded))


def test_what_wraps_a_model_is_looked_through():
    model = tiny.language_model()

    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module):
            super().__init__()
            self.module = module

    assert core(Wrapper(Wrapper(model))) is model


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (CohereConfig(**tiny.sizes(logit_scale=0.5)), CohereForCausalLM),
        (GraniteConfig(**tiny.sizes(logits_scaling=4.0)), GraniteForCausalLM),
    ],
    ids=["scaled", "divided"],
)
def test_logits_are_scaled_as_the_model_scales_them(config, kind, encoded):
    torch.manual_seed(0)
    model = kind(config).eval()
    expected = padded_logprobs(model, encoded)
    assert prepare(model)
    assert_near(token_logprobs(model, encoded), expected)


def test_a_head_with_an_adapter_on_it_is_read_from_padded_rows(encoded):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(tiny.language_model(), LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    assert not prepare(adapted)
    assert_near(token_logprobs(adapted, encoded), padded_logprobs(tiny.language_model(), encoded))


def test_adapters_inside_are_trained_through_packed_rows(encoded):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(tiny.language_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert prepare(adapted)
    token_logprobs(adapted, encoded).sum().backward()
    assert all(value.grad is not None for name, value in adapted.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_activation_checkpointing_changes_no_gradient(architecture, encoded):
    gradients = []
    for checkpointing in (False, True):
        model = tiny.language_model(architecture).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        assert prepare(model)
        token_logprobs(model, encoded).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_classifier_that_reads_no_packed_rows_still_answers_at_positions():
    from transformers import LlamaConfig, LlamaForSequenceClassification

    model = LlamaForSequenceClassification(LlamaConfig(**tiny.sizes(num_labels=1))).eval()
    assert not patch_forward(model, examine=lambda model: False)
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    reads = Reads(torch.tensor([2, 4]), lambda model, hidden: model.score(hidden)[:, 0])
    answers = model(input_ids=ids, reads=reads)
    # Positions are counted through both rows: the last of the first, and the second of the other.
    expected = [model(input_ids=row[None]).logits.item() for row in (ids[0], ids[1, :2])]
    assert answers.tolist() == near(expected)
