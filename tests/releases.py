"""Tokenizers with the ids of released ones where recipes need them, and tiny random checkpoints of their classes.

The ids are those of the released vocabularies: a recipe is checked against them as it stands.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from freeprm.types import Rollout

LLAMA_3_1 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: {{ date_string }}"
    "\n\n{{ system }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Llama 3.1's template without its tools."""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 400, "initializer_range": 0.4, "tie_word_embeddings": False,
}  # fmt: skip
RESPONSE = "Step 1: 3 + 4 is 7.\n\nStep 2: 7 - 2 is 5.\n\nThe answer is 5."
ROLLOUTS = [
    Rollout(problem_id="p", sample_idx=0, prompt="What is 3 + 4 - 2?", response=RESPONSE),
    Rollout(problem_id="p", sample_idx=1, prompt="What is 3 + 4 - 2?", response="Step 1: It is 9."),
    Rollout(problem_id="q", sample_idx=0, prompt="One?", response="Step 1: one\n\nStep 2: two, \u00e9 and three\n\n4"),
]


def one(response: str, *, prompt: str = "One?", **extra: object) -> Rollout:
    """A rollout of its own."""
    return Rollout(problem_id="p", sample_idx=3, prompt=prompt, response=response, extra=extra)


@cache
def _sentencepiece() -> str:
    """Mistral's way of tokenising: `▁` for spaces and before the text, ids of `▁ки`, `ки`, `▁+`, `▁-` as released."""
    single = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!()[]\\/'+-=$\n", "é", "к", "и", "▁"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {token: 20_000 + index for index, token in enumerate(single)}
    vocab |= {"ки": 1107, "▁ки": 12902, "▁+": 648, "▁-": 387, "▁S": 318, "▁к": 3000}
    merges = [("к", "и"), ("▁", "ки"), ("▁", "+"), ("▁", "-"), ("▁", "S")]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Replace("▁", " ")
    made.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return str(made.to_str())


def mistral_tokenizer(**instead: int) -> PreTrainedTokenizerFast:
    """Mistral's special ids; others for some tokens, where asked for."""
    stored = json.loads(_sentencepiece())
    stored["model"]["vocab"] |= instead
    made = Tokenizer.from_str(json.dumps(stored))
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")


@cache
def _byte_level(special: tuple[tuple[int, str], ...], words: tuple[tuple[str, int], ...]) -> str:
    """Bytes in GPT-2's order, as Llama 3 and Qwen have them, so that `+` is 10, `-` 12 and a line break 198."""
    vocab = {letter: index for index, letter in enumerate(_gpt2_order())} | {text: token for token, text in special}
    merges: list[tuple[str, str]] = []
    for word, last in words:
        left, filler = word[0], 30_000 + 100 * len(vocab)
        for letter in word[1:]:
            merges.append((left, letter))
            left += letter
            vocab[left] = last if left == word else filler + len(left)
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r" ?[^\s\w]+[\r\n]*| ?\w+|\s*[\r\n]+|\s+"), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    made.decoder = decoders.ByteLevel()
    stored = json.loads(made.to_str())
    stored["added_tokens"] = [
        {"id": token, "content": text, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
         "single_word": False}
        for token, text in special
    ]  # fmt: skip
    return json.dumps(stored)


def _gpt2_order() -> list[str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]


def llama_tokenizer(**options: object) -> PreTrainedTokenizerFast:
    """Llama 3.1's special ids, and `assistant`, `\\n\\n` and `.\\n\\n` as they are there."""
    special = (
        (128000, "<|begin_of_text|>"), (128001, "<|end_of_text|>"), (128006, "<|start_header_id|>"),
        (128007, "<|end_header_id|>"), (128009, "<|eot_id|>"),
    )  # fmt: skip
    words = (("assistant", 78191), ("user", 882), (".ĊĊ", 382), ("ĊĊ", 271))
    made = Tokenizer.from_str(_byte_level(special, words))
    given = {"chat_template": LLAMA_3_1, "eos_token": "<|eot_id|>", "pad_token": "<|eot_id|>", **options}
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<|begin_of_text|>", **given)


def qwen_tokenizer(*, marker: str = "<extra_0>", **options: object) -> PreTrainedTokenizerFast:
    """Qwen2.5-Math-PRM's special ids and Qwen's template with a system turn; `.\n\n` is one token."""
    special = ((151643, "<|endoftext|>"), (151644, "<|im_start|>"), (151645, "<|im_end|>"), (151651, marker))
    made = Tokenizer.from_str(_byte_level(special, (("assistant", 77091), (".ĊĊ", 382), ("ĊĊ", 271))))
    given = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHATML, **options}
    return PreTrainedTokenizerFast(tokenizer_object=made, **given)


def llama(*, labels: int | None = None) -> PreTrainedModel:
    """A language model, or a classifier of so many labels."""
    config = LlamaConfig(vocab_size=128_010, pad_token_id=128_009, **SIZES)
    if labels is None:
        return LlamaForCausalLM(config).eval()
    config.num_labels = labels
    return LlamaForSequenceClassification(config).eval()


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(vocab_size=32_000, sliding_window=None, **SIZES)).eval()


def qwen(*, vocab_size: int = 151_670) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocab_size, **SIZES)).eval()


def seeded(make: Callable[[], PreTrainedModel], seed: int = 0) -> PreTrainedModel:
    """A random model, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def save_released(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, architecture: str | None = None,
    head: Mapping[str, Tensor] | None = None, **config: object,
) -> Path:  # fmt: skip
    """A checkpoint folder; with `head`, the transformer's weights under `model.` and the head's under their names."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if architecture is not None:
        path = folder / "config.json"
        stored = json.loads(path.read_text()) | {"architectures": [architecture], **config}
        path.write_text(json.dumps(stored))
    if head is not None:
        core = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("model.")}
        save_file({**core, **head}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
