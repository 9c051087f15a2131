"""FLOPs by hand, and parameter counts against models built without memory."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from freeprm.core.flops import (
    Flops,
    ModelShape,
    charge,
    forward_charges,
    forward_flops,
    generation_charges,
    generation_flops,
    training_flops,
)
from freeprm.errors import ModelError

TINY = ModelShape(n_parameters=1000, n_layers=2, attention_width=8)


def test_forward_is_two_flops_a_parameter_and_token_plus_causal_attention():
    # One sequence of 5 tokens sees contexts 1 + 2 + 3 + 4 + 5 = 15: scores and weighted sum are 2 * 2 * 8 * 15 a layer.
    flops = forward_flops(TINY, 5, 5)
    assert flops.parameters == 2 * 1000 * 5
    assert flops.attention == 2 * (2 * 2 * 8 * 15)
    assert flops.total == 10_000 + 960


def test_forward_of_many_equal_sequences_is_their_sum():
    assert forward_flops(TINY, 30, 5).total == pytest.approx(6 * forward_flops(TINY, 5, 5).total)


def test_training_costs_three_forward_passes_and_four_with_recomputation():
    forward = forward_flops(TINY, 5, 5)
    assert training_flops(TINY, 5, 5).total == 3 * forward.total
    assert training_flops(TINY, 5, 5, checkpointing=True).attention == 4 * forward.attention


def test_generation_encodes_the_prompt_once_and_each_token_sees_all_before_it():
    # One prompt of 3 tokens, two responses of 4. Contexts in decoding: 4, 5, 6, 7 twice over = 44.
    flops = generation_flops(TINY, n_prompts=1, prompt_tokens=3, n_samples=2, generated_tokens=8)
    assert flops.prefill == forward_flops(TINY, 3, 3)
    assert flops.decode.parameters == 2 * 1000 * 8
    assert flops.decode.attention == 4 * 2 * 8 * 44
    assert flops.total == flops.prefill.total + flops.decode.total


def test_generation_of_nothing_costs_nothing():
    assert generation_flops(TINY, n_prompts=0, prompt_tokens=0, n_samples=0, generated_tokens=0).total == 0


def test_shape_of_llama_8b_is_its_known_size_without_embeddings():
    # Per layer: q and o 4096 * 4096 each, k and v 4096 * 1024 each, MLP 3 * 4096 * 14336 = 218,103,808;
    # 32 layers and a head of 4096 * 128256: 7,504,658,432. With embeddings (525,336,576) that is the known 8.03 B.
    config = SimpleNamespace(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14336, vocab_size=128256, model_type="llama",
    )  # fmt: skip
    shape = ModelShape.of(config)
    assert shape == ModelShape(n_parameters=7_504_658_432, n_layers=32, attention_width=4096)


CONFIGS = {
    "LlamaConfig": {"num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": True},
    "Qwen3Config": {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 16},
    "GPT2Config": {},
    "OPTConfig": {"ffn_dim": 40, "word_embed_proj_dim": 32},
    "GPTNeoXConfig": {"intermediate_size": 40},
    "Gemma2Config": {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 16},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_shape_counts_the_weight_matrices_of_the_real_architecture(name):
    import torch
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
    config = getattr(transformers, name)(**sizes, **CONFIGS[name])
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    weights = [m.weight for m in model.modules() if hasattr(m, "weight") and not isinstance(m, torch.nn.Embedding)]
    assert ModelShape.of(config).n_parameters == sum(weight.numel() for weight in weights if weight.ndim == 2)


def test_shape_counts_only_the_experts_that_a_token_is_sent_to():
    # Attention 32 * 8 * (2 * 4 + 2 * 4) = 4096; two of eight experts 3 * 32 * 2 * 24 = 4608; router 32 * 8 = 256;
    # head 32 * 96 = 3072.
    from transformers import MixtralConfig

    config = MixtralConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4, intermediate_size=24,
        num_local_experts=8, num_experts_per_tok=2, vocab_size=96,
    )  # fmt: skip
    assert ModelShape.of(config).n_parameters == 4096 + 4608 + 256 + 3072


def test_shape_of_something_else_says_what_is_missing():
    with pytest.raises(ModelError, match="num_hidden_layers"):
        ModelShape.of(SimpleNamespace(hidden_size=8))


def test_flops_load_no_torch():
    code = "import sys, freeprm.core.flops; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_adapters_leave_out_the_gradients_of_frozen_weights():
    forward, adapted = forward_flops(TINY, 5, 5), training_flops(TINY, 5, 5, adapters=True)
    assert (adapted.parameters, adapted.attention) == (2 * forward.parameters, 3 * forward.attention)
    assert training_flops(TINY, 5, 5, adapters=True, checkpointing=True).parameters == 3 * forward.parameters


def test_charges_are_whole_operations():
    made = charge("policy forward", 3, Flops(parameters=6000.0, attention=10.4), seconds=1.5)
    assert (made.parameter_flops, made.attention_flops, made.flops, made.seconds) == (6000, 10, 6010, 1.5)
    assert charge("decode", 3, None).flops is None


def test_generation_is_charged_by_prefill_and_decode_also_where_the_shape_is_not_known():
    sizes = {"n_prompts": 1, "prompt_tokens": 3, "n_samples": 2, "generated_tokens": 8}
    prefill, decode = generation_charges(TINY, **sizes)
    assert (prefill.tokens, prefill.flops) == (3, forward_flops(TINY, 3, 3).total)
    assert (decode.tokens, decode.flops) == (8, generation_flops(TINY, **sizes).decode.total)
    assert [item.flops for item in generation_charges(None, **sizes)] == [None, None]


def test_forward_passes_are_charged_by_what_they_are():
    policy, reference = forward_charges(TINY, {"policy": 5, "reference": 0}, 5, seconds={"policy": 2.0})
    assert (policy.flops, policy.seconds) == (forward_flops(TINY, 5, 5).total, 2.0)
    assert (reference.flops, reference.seconds) == (0, None)


def test_a_head_of_other_outputs_counts_by_these():
    config = SimpleNamespace(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4, vocab_size=100,
    )  # fmt: skip
    assert ModelShape.of(config).n_parameters - ModelShape.of(config, n_outputs=0).n_parameters == 8 * 100
