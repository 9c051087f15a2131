import pytest
import torch
from transformers import LlamaConfig

from freeprm.errors import ModelError
from freeprm.models.heads import GatedHead, RegressionHead, ScoreHead, TokenHead, TwoLabelHead, ValueHead, load_head

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


def test_logits_of_tokens_are_those_of_the_whole_head():
    head = torch.nn.Linear(4, 9)
    assert torch.allclose(TokenHead(head, (7, 2), scale=1.0, cap=None)(STATES), head(STATES)[:, [7, 2]])
    capped = TokenHead(head, (7, 2), scale=0.5, cap=3.0)(STATES)
    assert torch.allclose(capped, 3 * (head(STATES)[:, [7, 2]] / 2 / 3).tanh())


def test_logits_of_tokens_are_float32_of_a_head_in_16_bits():
    head = torch.nn.Linear(2, 2, bias=False).bfloat16()
    head.weight.data = torch.tensor([[1.0, 0.0078125], [0.0, 1.0]]).bfloat16()
    found = TokenHead(head, (0, 1), scale=1.0, cap=None)(torch.tensor([[16.0, 1.0]]))
    assert found.tolist() == [[16.0078125, 1.0]]  # from 16 on, bfloat16 goes in steps of an eighth


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
