"""Which lengths a configuration tells apart; that models read accordingly is held by test_ways.py."""

import pytest
import torch
from transformers import Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Phi3Config, PreTrainedConfig, Qwen2Config

from freeprm.models.lengths import alike, forget_lengths, kind_of, last_of_kind, splits_every_length, thresholds

SIZES = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "initializer_range": 0.5,
}  # fmt: skip
DYNAMIC = LlamaConfig(
    **SIZES, max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
)
LONGROPE = Phi3Config(
    **SIZES, max_position_embeddings=128, original_max_position_embeddings=16, pad_token_id=0,
    rope_parameters={
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 16,
    },
)  # fmt: skip
LLAMA3 = LlamaConfig(
    **SIZES, max_position_embeddings=128,
    rope_parameters={
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (LLAMA3, [[3, 16, 17, 18, 17]]),
        (LONGROPE, [[3, 16], [17, 18, 17]]),
        (DYNAMIC, [[3, 16], [17, 17], [18]]),
    ],
    ids=["llama3", "longrope", "dynamic"],
)
def test_lengths_are_of_one_kind_where_the_same_frequencies_are_theirs(config, parts):
    assert alike([3, 16, 17, 18, 17], config, length=int) == parts


def test_a_text_grows_within_its_kind():
    lasts = [[last_of_kind(config, n) for n in (3, 16, 17)] for config in (LLAMA3, LONGROPE, DYNAMIC)]
    assert lasts == [[None, None, None], [16, 16, None], [16, 16, 17]]
    assert [splits_every_length(DYNAMIC, n) for n in (16, 17)] == [False, True]
    assert not splits_every_length(LONGROPE, 17)


def test_embeddings_of_single_kinds_of_layers_count_too():
    config = PreTrainedConfig(max_position_embeddings=100)
    config.rope_parameters = {
        "full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 40},
        "sliding_attention": {"rope_type": "default"},
    }
    assert [kind_of(config, n) for n in (40, 41)] == [(0,), (1,)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(**SIZES), ()),
        (LLAMA3, (16,)),
        (DYNAMIC, (16,)),
        (Gemma3TextConfig(**SIZES, sliding_window=8), (8,)),
        # Whose max_window_layers are no length, and whose window is none.
        (Qwen2Config(**SIZES, use_sliding_window=False, sliding_window=8, max_window_layers=5), ()),
        (Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=5), (8,)),
    ],
)  # fmt: skip
def test_thresholds_are_the_lengths_that_are_named(config, expected):
    assert thresholds(config) == expected


def test_dynamic_frequencies_are_those_of_the_sequence_and_of_none_before_it():
    # transformers keeps those of the longest sequence until one *shorter* than the original length comes, so one of
    # exactly that length, or any above it, is read by them.
    torch.manual_seed(0)
    model = LlamaForCausalLM(DYNAMIC).eval()
    rows = [torch.arange(n)[None] for n in (16, 20, 40)]
    with torch.no_grad():
        fresh = [model(input_ids=rows[0]).logits, model(input_ids=rows[1]).logits]
        model(input_ids=rows[2])
        assert not torch.allclose(model(input_ids=rows[1]).logits, fresh[1], atol=1e-3)
        for _ in range(2):
            forget_lengths(model)
            model(input_ids=rows[2])
        for row, expected in zip(rows, fresh, strict=False):
            torch.testing.assert_close(model(input_ids=row).logits, expected)
    rotary = model.model.rotary_emb
    assert len(rotary._forward_hooks) == 1  # however often it is asked for
    assert rotary.max_seq_len_cached == 16
