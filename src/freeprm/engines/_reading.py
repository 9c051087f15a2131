"""Prompts as token ids, with the beginnings of responses that samples continue.

Prompt and beginning are tokenised as one string, as in training and scoring. A beginning ends with a step and the
whitespace behind it, where a tokenizer may have two kinds of tokens:

- `.\\n\\n`, which ends the step: it is kept, as in the whole response.
- ` The`, which opens the next step: alone, its space would be a token that no response has here. Tokens of spaces and
  tabs at the end of a beginning are dropped, and the model writes them, with the word or without.
"""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.engines.base import Request
from freeprm.errors import ModelError
from freeprm.models.encoding import check_vocabulary, encode
from freeprm.types import Rollout

_WITHIN_LINES = " \t"


class Begun(NamedTuple):
    """The text that a sample continues."""

    ids: tuple[int, ...]
    """Of the rendered prompt and the beginning of the response."""
    prefix: str
    """The beginning, without the tokens dropped."""


def begin(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    *,
    config: PreTrainedConfig,
    max_length: int,
    model: str,
) -> list[Begun]:
    """The text that the samples of each request continue.

    Args:
        tokenizer, config: of the engine's model.
        requests: any number.
        max_length: tokens of its context.
        model: its name, for messages.

    Raises:
        ModelError: a prompt with its beginning fills the context, or has a token unknown to the model; names the
            problem.
    """
    rollouts = [
        Rollout(problem_id=item.problem_id, sample_idx=0, prompt=item.prompt, response=item.prefix, truncated=True)
        for item in requests
    ]
    begun = []
    read = encode(tokenizer, rollouts)
    check_vocabulary(read, config, model=model)
    for request, encoded in zip(requests, read, strict=True):
        ids, prefix = encoded.ids, request.prefix
        for start, _ in encoded.offsets.tolist()[::-1]:
            if prefix[start:].strip(_WITHIN_LINES) or len(ids) == 1:
                break
            ids, prefix = ids[:-1], prefix[:start]
        if len(ids) >= max_length:
            what = "its prompt with the beginning of a response" if request.prefix else "its prompt"
            raise ModelError(
                f"problem {request.problem_id!r}: {what} has {len(ids)} tokens, and the context of {model} holds "
                f"{max_length}; leave it out, or choose a model with a longer context"
            )
        begun.append(Begun(tuple(ids.tolist()), prefix))
    return begun
