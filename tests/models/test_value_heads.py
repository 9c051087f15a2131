"""Values of hidden states, by hand."""

import pytest
import torch
from torch import nn
from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

import tiny
from freeprm.models.value_heads import LinearHead, TokensHead
from rounding import assert_near


def test_a_linear_value_is_the_product_with_the_weight():
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(2, 1, bias=False)
            self.score.weight.data = torch.tensor([[2.0, -1.0]])

    # 2 * 3 - 1 * 4 = 2; 2 * 0.5 - 1 * 1 = 0
    assert LinearHead()(Classifier(), torch.tensor([[3.0, 4.0], [0.5, 1.0]])).tolist() == [2.0, 0.0]


def test_a_product_of_16_bits_is_taken_in_float32():
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
            self.score.weight.data = torch.tensor([[1.0, 0.0078125]], dtype=torch.bfloat16)

    value = LinearHead()(Classifier(), torch.tensor([[4.0, 1.0]], dtype=torch.bfloat16))
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
    values = TokensHead(good=11, bad=23)(model, model.base_model(input_ids=ids).last_hidden_state[0])
    assert_near(values, logits[:, 11] - logits[:, 23])
