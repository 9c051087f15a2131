import numpy as np
import pytest
import torch
from torch import nn
from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM, LlamaConfig

import tiny
from freeprm.errors import ModelError
from freeprm.models.encoding import encode
from freeprm.models.heads import (
    GatedHead,
    LinearValue,
    RegressionHead,
    ScoreHead,
    TokenLogits,
    TokensValue,
    TwoLabelHead,
    ValueHead,
    load_head,
    packed_reads,
    padded_reads,
)
from freeprm.models.packed_forward import Tree
from freeprm.models.packing import pack
from freeprm.models.routes import prepare
from rounding import assert_near

CONFIG = LlamaConfig(hidden_size=4, num_attention_heads=2, num_objectives=3, gating_hidden_dim=5, gating_n_hidden=2)
STATES = torch.arange(24.0).reshape(6, 4)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ScoreHead, {"score.weight"}),
        (RegressionHead, {"regression_head.weight"}),
        (TwoLabelHead, {"score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias"}),
        (ValueHead, {"v_head.summary.weight", "v_head.summary.bias"}),
        (
            GatedHead,
            {"regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"}
            | {f"gating.layers.{layer}.{kind}" for layer in range(3) for kind in ("weight", "bias")},
        ),
    ],
)
def test_a_head_has_the_weights_under_the_released_names(kind, names):
    assert set(kind(CONFIG).state_dict()) == names


@pytest.mark.parametrize(
    ("kind", "shape"), [(ScoreHead, (6, 1)), (RegressionHead, (6, 1)), (TwoLabelHead, (6, 2)), (ValueHead, (6, 1)),
                        (GatedHead, (3, 1))]
)  # fmt: skip
def test_a_head_answers_for_each_state_and_the_gated_one_for_each_pair(kind, shape):
    assert kind(CONFIG)(STATES).shape == shape


def test_logits_of_tokens_are_float32_of_a_head_in_16_bits():
    model = tiny.language_model().bfloat16()
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = TokenLogits(11, 23)(model, hidden)
    assert found.dtype == torch.float32
    exact = hidden.double() @ model.lm_head.weight[[11, 23]].double().t()
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)  # bfloat16 keeps two digits


def test_a_linear_value_is_the_product_with_the_weight():
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(2, 1, bias=False)
            self.score.weight.data = torch.tensor([[2.0, -1.0]])

    # 2 * 3 - 1 * 4 = 2; 2 * 0.5 - 1 * 1 = 0
    assert LinearValue()(Classifier(), torch.tensor([[3.0, 4.0], [0.5, 1.0]])).tolist() == [2.0, 0.0]


def test_a_product_of_16_bits_is_taken_in_float32():
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
            self.score.weight.data = torch.tensor([[1.0, 0.0078125]], dtype=torch.bfloat16)

    value = LinearValue()(Classifier(), torch.tensor([[4.0, 1.0]], dtype=torch.bfloat16))
    assert value.tolist() == [4.0078125]  # bfloat16 would say 4.0


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (CohereConfig(**tiny.sizes(logit_scale=0.5)), CohereForCausalLM),
        (GraniteConfig(**tiny.sizes(logits_scaling=4.0)), GraniteForCausalLM),
        (None, None),
    ],
    ids=["scaled", "divided", "capped"],
)
def test_the_logits_of_tokens_are_scaled_and_capped_as_the_model_has_them(config, kind):
    torch.manual_seed(0)
    model = tiny.language_model("gemma2") if kind is None else kind(config).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    logits = model(input_ids=ids).logits[0]
    hidden = model.base_model(input_ids=ids).last_hidden_state[0]
    assert_near(TokenLogits(23, 11)(model, hidden), logits[:, [23, 11]])
    values = TokensValue(good=11, bad=23)(model, hidden)
    assert_near(values, logits[:, 11] - logits[:, 23])


def test_weights_are_read_from_pickles_without_code_too(tmp_path):
    head = ScoreHead(CONFIG)
    torch.save({**head.state_dict(), "lm_head.weight": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    loaded = load_head(ScoreHead(CONFIG), tmp_path, wanted="x")
    assert torch.equal(loaded.score.weight, head.score.weight)


def test_a_checkpoint_without_the_head_is_refused(tmp_path):
    torch.save({"lm_head.weight": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no weight score\.weight, which x has; a language model"):
        load_head(ScoreHead(CONFIG), tmp_path, wanted="x")


def test_weights_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(ModelError, match="the weights cannot be read"):
        load_head(ScoreHead(CONFIG), tmp_path, wanted="x")


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
