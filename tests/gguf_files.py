"""Tiny models as GGUF files, written as llama.cpp's converter writes them."""

import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quantize
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import tiny

_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers.": "blk.",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_NORMAL, _CONTROL = 1, 3


def save_gguf(
    file: Path, *, architecture: str = "llama", seed: int = 0, template: str | None = None, named: str | None = None,
    with_tokenizer: bool = True,
) -> PreTrainedModel:  # fmt: skip
    """Write a file in Q8_0, and give the model that it was made of.

    Args:
        architecture: one of `tiny.ARCHITECTURES` that llama.cpp knows too.
        named: the architecture that the file says it is of, if another.
    """
    model, tokenizer = tiny.language_model(architecture, seed=seed), tiny.tokenizer(template=template)
    config = model.config
    writer = GGUFWriter(file, named or config.model_type)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if with_tokenizer:
        _add_tokenizer(writer, tokenizer)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.numpy()
        if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            values = _permuted(values, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        kind = GGMLQuantizationType.Q8_0 if values.ndim == 2 and values.shape[1] % 32 == 0 else GGMLQuantizationType.F32
        writer.add_tensor(_named(name), quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    bpe = json.loads(tiny.byte_level())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in tiny.SPECIAL else _NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _named(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """The halves of a head's rotary pairs one after the other, as llama.cpp wants them of a Llama."""
    rows = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)
