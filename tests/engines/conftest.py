"""Tiny random models of several architectures, saved as transformers saves them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models

from freeprm.engines.openai import server
from openai_stub import Serve, stubs

LETTERS = "abcdefghijklmnopqrstuvwxyz .?"
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip

SaveTiny = Callable[..., Path]


@pytest.fixture
def save_tiny(tmp_path: Path) -> SaveTiny:
    """save_tiny("LlamaConfig", chat=True, **config): a folder with random weights and a character tokenizer."""

    def save(config_name: str = "LlamaConfig", *, chat: bool = True, pad: str | None = None, **config: Any) -> Path:
        special = ["</s>", "<user>", "<assistant>"]
        vocabulary = {token: index for index, token in enumerate([*special, *LETTERS, "\n"])}
        tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
        tokenizer.decoder = decoders.Fuse()
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token=pad)
        fast.add_special_tokens({"additional_special_tokens": special[1:]})
        fast.chat_template = CHAT if chat else None
        torch.manual_seed(0)
        sizes = {
            **SIZES,
            "vocab_size": len(vocabulary),
            "eos_token_id": 0,
            "bos_token_id": None,
            "pad_token_id": None,
            **config,
        }
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config_name)(**sizes))
        folder = tmp_path / config_name
        model.save_pretrained(folder)
        fast.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts stub servers; what is sent to them again is sent soon."""
    monkeypatch.setattr(server, "_FIRST_WAIT", 0.01)
    with stubs() as start:
        yield start
