"""The algorithm of the scorer released with Yuan et al. 2024 (arXiv:2412.01981), written down plainly.

Batches of 4 in the order of the data, padded on the right; the logits of every position, prompts included; a
log-softmax over all of them in the model's dtype; the log-probabilities of the labels gathered from it. Each response
is tokenised once whole and once more for each of its prefixes, whose lengths are the step boundaries. A prompt is
encoded with each of its responses, and everything is done again for the reference: call it once for each model.

What it does wrong is left out, since it costs no time: it neither rewrites the text, nor hides end-of-turn tokens that
equal the padding, nor counts tokens of the prompt.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from freeprm.models.prompts import render_prompt, turn_end
from freeprm.types import Rollout

BATCH_SIZE = 4


class Text(NamedTuple):
    """A response as the scorer takes it."""

    head: str
    """The rendered prompt."""
    steps: tuple[str, ...]
    """Which joined together are the response."""
    end: str
    """What ends a finished response."""


class Scored(NamedTuple):
    """What the scorer computes of a response, for one model."""

    token_logprobs: Tensor
    """(T,) in the model's dtype."""
    boundaries: tuple[int, ...]
    """Tokens of the response up to the end of each step."""


def text_of(tokenizer: PreTrainedTokenizerBase, rollout: Rollout) -> Text:
    """A rollout whose steps are paragraphs."""
    *firsts, last = rollout.response.split("\n\n")
    return Text(
        head=render_prompt(tokenizer, rollout.prompt), steps=(*(step + "\n\n" for step in firsts), last),
        end="" if rollout.truncated else turn_end(tokenizer),
    )  # fmt: skip


@torch.no_grad()
def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], *, batch_size: int = BATCH_SIZE
) -> list[Scored]:
    """The token log-probabilities of responses, in order."""
    scored = []
    for start in range(0, len(texts), batch_size):
        scored += _score_batch(model, tokenizer, texts[start : start + batch_size])
    return scored


def _score_batch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[Scored]:
    rows = [_ids(tokenizer, text.head + "".join(text.steps) + text.end) for text in texts]
    prefixes = [_prefix_lengths(tokenizer, text) for text in texts]
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    attention_mask = torch.zeros(len(rows), length, dtype=torch.long)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values)
        attention_mask[row, : len(values)] = 1
    ids, attention_mask = ids.to(model.device), attention_mask.to(model.device)
    logits = model(input_ids=ids, attention_mask=attention_mask).logits  # (B, L, V)
    logprobs = logits[:, :-1].log_softmax(-1)  # (B, L - 1, V)
    chosen = logprobs.gather(-1, ids[:, 1:, None])[..., 0]  # (B, L - 1)
    return [
        Scored(
            chosen[row, lengths[0] - 1 : len(values) - 1].cpu(),
            tuple(stop - lengths[0] for stop in lengths[1:]),
        )
        for row, (values, lengths) in enumerate(zip(rows, prefixes, strict=True))
    ]


def _prefix_lengths(tokenizer: PreTrainedTokenizerBase, text: Text) -> list[int]:
    """Tokens of the prompt, and of the prompt with the first 1, 2, ..., K steps."""
    return [
        len(_ids(tokenizer, text.head + "".join(text.steps[:count])))
        for count in range(len(text.steps) + 1)
    ]  # fmt: skip


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
