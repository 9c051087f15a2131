"""What is measured: random Llamas by size, a tokenizer of numbered words, rollouts of given lengths, and their work.

Weights and words are random, since speed and memory do not depend on what they say; lengths are what real rollouts
have: they spread about their mean. `real` has a model and responses that are not random.
"""

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from freeprm.core.flops import ModelShape, TransformerConfig
from freeprm.models.encoding import Encoded
from freeprm.types import Group, Rollout, group_rollouts

_SPECIAL = ("<pad>", "</s>", "<unk>")
_SPREAD = 0.3  # standard deviation of a response's length, over its mean
_STEP_TOKENS = 35


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The shape of a Llama, all but its vocabulary."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int


SIZES = {
    "0.9M": Size(hidden=128, layers=4, heads=4, kv_heads=2, ffn=384),
    "8M": Size(hidden=256, layers=10, heads=4, kv_heads=4, ffn=704),
    "50M": Size(hidden=512, layers=12, heads=8, kv_heads=4, ffn=1408),
    "400M": Size(hidden=1024, layers=24, heads=16, kv_heads=8, ffn=4096),
    "1B": Size(hidden=2048, layers=16, heads=32, kv_heads=8, ffn=8192),
    "8B": Size(hidden=4096, layers=32, heads=32, kv_heads=8, ffn=14336),
}
"""By parameters of the layers; `50M` has them with the tied head of 32k tokens, 1B and 8B are Llama 3's shapes."""


class Measurable(Protocol):
    """A model and the responses that go through it; can be pickled, and `str` names it in a row."""

    @property
    def weights_mib(self) -> float:
        """MiB of the model's weights."""
        ...

    def model(self) -> PreTrainedModel:
        """Made anew, as transformers makes it: each side has its own, and ours adapts the model that it is given."""
        ...

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model."""
        ...

    def groups(self) -> list[Group]:
        """Problems with graded responses."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A random model and random responses."""

    size: str
    """One of `SIZES`."""
    vocabulary: int
    prompts: int = 1
    n: int
    """Responses a prompt."""
    prompt_tokens: int
    response_tokens: int = 280
    """On average."""
    dtype: str = "float32"

    def __str__(self) -> str:
        parts = [
            f"{self.size}, V={self.vocabulary // 1000}k", *([f"P={self.prompts}"] if self.prompts > 1 else []),
            f"N={self.n}", f"prompt {self.prompt_tokens}", f"response {self.response_tokens}", self.dtype,
        ]  # fmt: skip
        return ", ".join(parts)

    @property
    def weights_mib(self) -> float:
        """See `Measurable`."""
        model = random_model(self, device="meta")
        return model.num_parameters() * model.dtype.itemsize / 2**20

    def model(self) -> PreTrainedModel:
        """See `Measurable`; `random_model` on the CPU."""
        return random_model(self)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `Measurable`; `word_tokenizer`."""
        return word_tokenizer(self.vocabulary)

    def groups(self) -> list[Group]:
        """See `Measurable`; `random_groups`."""
        return random_groups(self)


def random_model(work: Workload, *, device: str = "cpu", seed: int = 0) -> PreTrainedModel:
    """A Llama with random weights and tied embeddings, the same for the same seed."""
    size = SIZES[work.size]
    config = LlamaConfig(
        vocab_size=work.vocabulary, hidden_size=size.hidden, intermediate_size=size.ffn, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.kv_heads, max_position_embeddings=8192,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, work.dtype))
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(seed)
            model: PreTrainedModel = LlamaForCausalLM(config).eval()
            return model
    finally:
        torch.set_default_dtype(before)


@cache
def word_tokenizer(n_vocabulary: int) -> PreTrainedTokenizerFast:
    """One token a word `w3`, `w4`, ...; no chat template, an end-of-sequence token."""
    words = {f"w{index}": index for index in range(len(_SPECIAL), n_vocabulary)}
    made = Tokenizer(models.WordLevel({**{name: i for i, name in enumerate(_SPECIAL)}, **words}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def random_groups(work: Workload, *, seed: int = 0) -> list[Group]:
    """P prompts with N responses in steps; right and wrong ones take turns; no two are equal."""
    rng = random.Random(f"{seed}/{work}")
    rollouts = []
    for problem in range(work.prompts):
        prompt = _words(rng, work.prompt_tokens, work.vocabulary)
        for index in range(work.n):
            drawn = rng.gauss(work.response_tokens, _SPREAD * work.response_tokens)
            length = max(2, int(min(max(drawn, 0.2 * work.response_tokens), 2 * work.response_tokens)))
            words = _words(rng, length - 1, work.vocabulary).split()  # and the end-of-sequence token
            steps = [" ".join(words[at : at + _STEP_TOKENS]) for at in range(0, len(words), _STEP_TOKENS)]
            rollouts.append(
                Rollout(
                    problem_id=f"p{problem}", sample_idx=index, prompt=prompt, response="\n\n".join(steps),
                    correct=index % 2 == 0,
                )
            )  # fmt: skip
    return group_rollouts(rollouts)


def random_rollouts(work: Workload) -> list[Rollout]:
    """Those of `random_groups`, one after the other."""
    return rollouts_of(random_groups(work))


def rollouts_of(groups: Iterable[Group]) -> list[Rollout]:
    """Group by group."""
    return [rollout for group in groups for rollout in group.rollouts]


def named_folder(variable: str) -> Path | None:
    """The folder that an environment variable names; None where it names none."""
    folder = Path(os.environ.get(variable, ""))
    return folder if variable in os.environ and folder.is_dir() else None


def _words(rng: random.Random, count: int, n_vocabulary: int) -> str:
    return " ".join(f"w{rng.randrange(len(_SPECIAL), n_vocabulary)}" for _ in range(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Tokens and FLOPs of one forward pass over all responses."""

    naive_tokens: int
    """Every response with its prompt: the tokens that a rate here counts, whoever does the work."""
    unique_tokens: int
    """Each different prompt once."""
    response_tokens: int
    """Those whose log-probabilities are wanted."""
    naive_flops: float
    """2 P a naive token, and attention."""
    unique_flops: float
    """2 P a unique token, of which the output head only for response tokens, and attention."""
    naive_flops_a_token: float
    """2 P, without attention: the peak over it is the naive-token limit of matrix products."""

    @classmethod
    def of(cls, encoded: Sequence[Encoded], config: TransformerConfig) -> Self:
        """The work of these responses under a model of this configuration."""
        shape = ModelShape.of(config)
        head = config.hidden_size * config.vocab_size
        prompts = {item.ids[: item.n_prompt].tobytes(): item.n_prompt for item in encoded}
        naive = sum(len(item.ids) for item in encoded)
        response = sum(item.n_response for item in encoded)
        unique = sum(prompts.values()) + response
        own_context = sum(_contexts(item.n_prompt, len(item.ids)) for item in encoded)
        prompt_context = sum(_contexts(0, length) for length in prompts.values())
        naive_context = sum(_contexts(0, len(item.ids)) for item in encoded)
        a_context = 4.0 * shape.n_layers * shape.attention_width
        return cls(
            naive_tokens=naive,
            unique_tokens=unique,
            response_tokens=response,
            naive_flops=2.0 * shape.n_parameters * naive + a_context * naive_context,
            unique_flops=2.0 * (shape.n_parameters - head) * unique
            + 2.0 * head * response
            + a_context * (own_context + prompt_context),
            naive_flops_a_token=2.0 * shape.n_parameters,
        )


def different(ours: Iterable[Sequence[float]], theirs: Iterable[Sequence[float]]) -> float:
    """The largest difference of two ways' numbers, response by response.

    Raises:
        ValueError: another number of responses or tokens.
    """
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(np.subtract(left, right, dtype=np.float64)).max()) for left, right in pairs)


def _contexts(start: int, stop: int) -> float:
    """Sum of the contexts of the tokens [start, stop) of a causal sequence; the first token's context is 1."""
    return (stop * (stop + 1) - start * (start + 1)) / 2
