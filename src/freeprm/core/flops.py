"""Tokens times parameters: the FLOPs of a forward pass, a training step or a generation.

A multiplication and an addition count as two. Every token passes every weight matrix once (2 P), and attends to the
tokens before it (4 L d c: scores and weighted sum, in L layers of width d, over a context of c). Norms, activations,
biases and the look-up of embeddings are left out, as is usual. Latent (MLA) and linear attention, and dense layers
among mixtures of experts, are counted as if they were ordinary.

Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1, where attention over the causal half of the
context is 2 L d n for sequences of n tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from freeprm.errors import ModelError
from freeprm.types import Charge

UNGATED = frozenset((
    "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "phi",
    "starcoder2",
))  # fmt: skip
"""Model types whose MLP has two matrices; all others have three, with a gate."""


class Flops(NamedTuple):
    """FLOPs of parameters and attention."""

    parameters: float
    """2 P a token and pass."""
    attention: float
    """Grows with the context."""

    @property
    def total(self) -> float:
        """Both together."""
        return self.parameters + self.attention


class GenerationFlops(NamedTuple):
    """The cost of sampling."""

    prefill: Flops
    """Prompts, each encoded once for all of its samples."""
    decode: Flops
    """One forward pass a generated token."""

    @property
    def total(self) -> float:
        """Both together."""
        return self.prefill.total + self.decode.total


class TransformerConfig(Protocol):
    """Fields of every configuration of transformers; others are looked up by name."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes that decide a decoder's cost."""

    n_parameters: int
    """P: weights of the matrices that every token is multiplied with: with the output head, tied or not, without
    embeddings, and only with the experts that a token is sent to."""
    n_layers: int
    attention_width: int
    """d: heads times head size, which is the hidden size in most models."""

    @classmethod
    def of(cls, config: TransformerConfig, *, n_outputs: int | None = None) -> Self:
        """The shape of a transformers configuration.

        Args:
            config: of a decoder.
            n_outputs: of the output head; by default the vocabulary.

        Raises:
            ModelError: the configuration lacks a size of a decoder.
        """
        try:
            hidden, n_layers, n_heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
            head_size = _first(config, "head_dim", default=hidden // n_heads)
            n_kv_heads = _first(config, "num_key_value_heads", default=n_heads)
            attention = hidden * head_size * (2 * n_heads + 2 * n_kv_heads)
            per_layer = attention + _mlp_parameters(config)
            n_parameters = n_layers * per_layer + hidden * (config.vocab_size if n_outputs is None else n_outputs)
        except (AttributeError, TypeError) as error:
            raise ModelError(
                f"{type(config).__name__}: not the configuration of a decoder ({error}); cannot count its FLOPs"
            ) from error
        return cls(n_parameters=n_parameters, n_layers=n_layers, attention_width=n_heads * head_size)


def forward_flops(shape: ModelShape, n_tokens: float, mean_length: float) -> Flops:
    """`2 P + 4 L d c` a token, with c = (mean_length + 1) / 2, the mean context of a causal sequence.

    Args:
        shape: of the model.
        n_tokens: without padding.
        mean_length: tokens of a sequence, on average over tokens or, approximately, sequences.
    """
    return _pass(shape, n_tokens, context=(mean_length + 1) / 2)


def training_flops(
    shape: ModelShape, n_tokens: float, mean_length: float, *, checkpointing: bool = False, adapters: bool = False
) -> Flops:
    """The cost of three forward passes: one forward, two backward, `2 P + 4 P` a token.

    Args:
        shape, n_tokens, mean_length: see `forward_flops`.
        checkpointing: activations are recomputed, which is a fourth pass.
        adapters: only adapters are trained: other matrices pass gradients on but have none, `2 P + 2 P`. The adapters
            themselves, about 1 %, are left out.
    """
    forward = forward_flops(shape, n_tokens, mean_length)
    again = 1 if checkpointing else 0
    return Flops(
        parameters=(again + (2 if adapters else 3)) * forward.parameters, attention=(again + 3) * forward.attention
    )


def generation_flops(
    shape: ModelShape, *, n_prompts: int, prompt_tokens: int, n_samples: int, generated_tokens: int
) -> GenerationFlops:
    """Prompts encoded once, then one forward pass a generated token over the prompt and the response so far.

    Args:
        shape: of the model.
        n_prompts, prompt_tokens: of all prompts, each once.
        n_samples, generated_tokens: of all responses.
    """
    prompt_length = prompt_tokens / max(n_prompts, 1)
    response_length = generated_tokens / max(n_samples, 1)
    return GenerationFlops(
        prefill=forward_flops(shape, prompt_tokens, prompt_length),
        decode=_pass(shape, generated_tokens, context=prompt_length + (response_length + 1) / 2),
    )


def charge(what: str, tokens: int, flops: Flops | None, *, seconds: float | None = None) -> Charge:
    """A charge in whole FLOPs, so that sums equal their parts; None if unknown."""
    return Charge(
        what=what,
        tokens=tokens,
        parameter_flops=None if flops is None else round(flops.parameters),
        attention_flops=None if flops is None else round(flops.attention),
        seconds=seconds,
    )


def generation_charges(
    shape: ModelShape | None, *, n_prompts: int, prompt_tokens: int, n_samples: int, generated_tokens: int
) -> tuple[Charge, Charge]:
    """`prefill` and `decode`; see `generation_flops`. FLOPs are unknown if the shape is."""
    if shape is None:
        return charge("prefill", prompt_tokens, None), charge("decode", generated_tokens, None)
    flops = generation_flops(
        shape, n_prompts=n_prompts, prompt_tokens=prompt_tokens, n_samples=n_samples, generated_tokens=generated_tokens
    )
    return charge("prefill", prompt_tokens, flops.prefill), charge("decode", generated_tokens, flops.decode)


def forward_charges(
    shape: ModelShape, tokens: Mapping[str, int], mean_length: float, *, seconds: Mapping[str, float] | None = None
) -> tuple[Charge, ...]:
    """Charges of forward passes; see `forward_flops`."""
    return tuple(
        charge(what, n, forward_flops(shape, n, mean_length), seconds=(seconds or {}).get(what))
        for what, n in tokens.items()
    )


def _pass(shape: ModelShape, n_tokens: float, *, context: float) -> Flops:
    return Flops(
        parameters=2.0 * shape.n_parameters * n_tokens,
        attention=4.0 * shape.n_layers * shape.attention_width * context * n_tokens,
    )


def _mlp_parameters(config: TransformerConfig) -> int:
    """Weights of one layer's MLP that a token passes; of a mixture, of its experts and the router."""
    hidden = config.hidden_size
    n_matrices = 2 if getattr(config, "model_type", None) in UNGATED else 3
    width = _first(config, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    n_used = _first(config, "num_experts_per_tok", default=0)
    if not n_used:
        return n_matrices * hidden * width
    width = _first(config, "moe_intermediate_size", default=width)
    shared = _first(config, "shared_expert_intermediate_size", default=0)
    n_experts = _first(config, "num_local_experts", "num_experts", "n_routed_experts", default=0)
    return n_matrices * hidden * (n_used * width + shared) + hidden * n_experts


def _first(config: TransformerConfig, *names: str, default: int) -> int:
    """The first existing attribute that is not None."""
    found = (getattr(config, name, None) for name in names)
    return next((int(value) for value in found if value is not None), default)
