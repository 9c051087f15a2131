"""Tiny random models, their tokenizer and a toy task, made in a second, for tests of what takes a model."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from freeprm.models.loading import template_hash, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.types import Rollout

CONTEXT = 128
SPECIAL = ("<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""The shape of Llama-3's chat template, which writes the beginning-of-sequence token itself."""
DATED = "{{ strftime_now('%d %b %Y') }}\n" + LLAMA3
"""The same with the day at its head, as Llama 3.2 has it."""
_CORPUS = (
    "Step 1: we add 3 and 4, which is 7.\n\nStep 2: so the answer is 12.\n",
    "the sum is right? yes it is, no it is not",
)


@cache
def byte_level() -> str:
    """A byte-level BPE tokenizer of 300 tokens with merges such as `.\\n\\n`, as JSON."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(_CORPUS * 20, trainer)
    return str(made.to_str())


def tokenizer(*, template: str | None = None, pad: str | None = None) -> PreTrainedTokenizerFast:
    """A fresh tokenizer, with Llama-3's template or any other, or none."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_level()), bos_token="<s>",
        eos_token="</s>" if template is None else "<|eot_id|>", pad_token=pad, chat_template=template,
    )  # fmt: skip


def sizes(**extra: object) -> dict[str, object]:
    return {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "initializer_range": 0.2, **extra,
    }  # fmt: skip


LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": 32,
}  # fmt: skip
"""Frequencies that are others for every token of a sequence once it has more than 32."""
ARCHITECTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes(tie_word_embeddings=False))),
    "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**sizes(tie_word_embeddings=True))),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**sizes())),
    "mistral, sliding window": lambda: MistralForCausalLM(MistralConfig(**sizes(sliding_window=8))),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.2)
    ),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**sizes(head_dim=8, sliding_window=8))),
}
MORE: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**sizes(head_dim=8))),
    "phi": lambda: PhiForCausalLM(PhiConfig(**sizes())),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**sizes(pad_token_id=0))),
    "longrope": lambda: LlamaForCausalLM(LlamaConfig(**sizes(rope_parameters=LONGROPE))),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**sizes(head_dim=8, sliding_window=8))),
}
"""Further architectures, for the law that matters most."""


def language_model(architecture: str = "llama", *, seed: int = 0) -> PreTrainedModel:
    """A random model, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return (ARCHITECTURES | MORE)[architecture]().eval()


def save(folder: Path, *, architecture: str = "llama", seed: int = 0, template: str | None = None) -> Path:
    """A model folder as `save_pretrained` writes it."""
    language_model(architecture, seed=seed).save_pretrained(folder)
    tokenizer(template=template).save_pretrained(folder)
    return folder


def save_pair(folder: Path, *, template: str | None = None) -> None:
    """A reward model, `prm`, and the model that is its reference, `ref`, in a folder."""
    reference, prm = save(folder / "ref", template=template), save(folder / "prm", seed=1, template=template)
    of = Reference(source=str(reference), weights_sha256=weights_hash(reference))
    config = RewardConfig(
        beta=0.5,
        base=str(reference),
        objective="ce",
        reference=of,
        template_sha256=template_hash(tokenizer(template=template)),
    )
    save_reward_config(config, prm)


def rollouts(n_problems: int, *, labels: Sequence[bool] = (True, False, True, False), seed: int = 0) -> list[Rollout]:
    """A toy task: sums of which the right responses say `yes` in one of their steps, and the wrong ones `no`."""
    rng = random.Random(seed)
    made = []
    for problem in range(n_problems):
        a, b = rng.randrange(10), rng.randrange(10)
        for index, label in enumerate(labels):
            word = "yes" if label else "no"
            middle = f"Step 2: {word} it is.\n" * (index % 3)  # of unequal length
            made.append(
                Rollout(
                    problem_id=f"p{problem}", sample_idx=index, prompt=f"the sum of {a} and {b}?",
                    response=f"Step 1: {word}, {a + b} {index}.\n{middle}the answer is {a + b}", correct=label,
                )
            )  # fmt: skip
    return made
