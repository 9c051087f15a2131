"""How much work a batch of responses is: as most do it, each with its own prompt, and as little as it can be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from freeprm.core.flops import ModelShape, TransformerConfig
from freeprm.models.encoding import Encoded


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
