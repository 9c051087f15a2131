"""How others do it, written down plainly: the scorer released with the paper, and the usual ways with transformers.

The released scorer (Yuan et al. 2024, arXiv:2412.01981) reads batches of 4 in the order of the data, padded on the
right; the logits of every position, prompts included; a log-softmax over all of them in the model's dtype; the
log-probabilities of the labels gathered from it. Each response is tokenised once whole and once more for each of its
prefixes, whose lengths are the step boundaries. A prompt is encoded with each of its responses, and everything is done
again for the reference: call it once for each model. What it does wrong is left out, since it costs no time: it neither
rewrites the text, nor hides end-of-turn tokens that equal the padding, nor counts tokens of the prompt.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from freeprm.models.encoding import Encoded
from freeprm.models.prompts import render_prompt, turn_end
from freeprm.types import Prompt, Rollout

RELEASED_BATCH, PLAIN_BATCH = 4, 8


class ScorerText(NamedTuple):
    """A response as the scorer takes it."""

    head: str
    """The rendered prompt."""
    steps: tuple[str, ...]
    """Which joined together are the response."""
    end: str
    """What ends a finished response."""


class ReleasedScores(NamedTuple):
    """What the scorer computes of a response, for one model."""

    token_logprobs: Tensor
    """(T,) in the model's dtype."""
    boundaries: tuple[int, ...]
    """Tokens of the response up to the end of each step."""


def scorer_text(tokenizer: PreTrainedTokenizerBase, rollout: Rollout) -> ScorerText:
    """A rollout whose steps are paragraphs."""
    *firsts, last = rollout.response.split("\n\n")
    return ScorerText(
        head=render_prompt(tokenizer, rollout.prompt), steps=(*(step + "\n\n" for step in firsts), last),
        end="" if rollout.truncated else turn_end(tokenizer),
    )  # fmt: skip


@torch.no_grad()
def released_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[ScorerText],
    *,
    batch_size: int = RELEASED_BATCH,
) -> list[ReleasedScores]:
    """The token log-probabilities of responses, in order."""
    scored = []
    for start in range(0, len(texts), batch_size):
        scored += _score_batch(model, tokenizer, texts[start : start + batch_size])
    return scored


def _score_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[ScorerText]
) -> list[ReleasedScores]:
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
        ReleasedScores(
            chosen[row, lengths[0] - 1 : len(values) - 1].cpu(),
            tuple(stop - lengths[0] for stop in lengths[1:]),
        )
        for row, (values, lengths) in enumerate(zip(rows, prefixes, strict=True))
    ]


def _prefix_lengths(tokenizer: PreTrainedTokenizerBase, text: ScorerText) -> list[int]:
    """Tokens of the prompt, and of the prompt with the first 1, 2, ..., K steps."""
    return [
        len(_ids(tokenizer, text.head + "".join(text.steps[:count])))
        for count in range(len(text.steps) + 1)
    ]  # fmt: skip


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@torch.no_grad()
def plain_logprobs(model: PreTrainedModel, batch: Sequence[Encoded], *, batch_size: int = PLAIN_BATCH) -> list[Tensor]:
    """Those of `padded_logprobs`, in batches in the order given; one (T,) tensor a response."""
    parts = (batch[start : start + batch_size] for start in range(0, len(batch), batch_size))
    return [logps for part in parts for logps in padded_logprobs(model, part)]


def padded_logprobs(model: PreTrainedModel, batch: Sequence[Encoded]) -> list[Tensor]:
    """The usual way with transformers: pad a batch, log-softmax all of its logits, gather the labels.

    One (T,) float32 tensor a response, differentiable.
    """
    ids = pad_sequence([torch.from_numpy(item.ids).long() for item in batch], batch_first=True).to(model.device)
    lengths = torch.tensor([len(item.ids) for item in batch], device=ids.device)
    attention_mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()  # (B, L)
    logits = model(input_ids=ids, attention_mask=attention_mask).logits[:, :-1]
    logprobs = logits.float().log_softmax(-1)  # (B, L - 1, V)
    chosen = logprobs.gather(-1, ids[:, 1:, None])[..., 0].cpu()
    return [row[item.n_prompt - 1 : len(item.ids) - 1] for row, item in zip(chosen, batch, strict=True)]


@torch.no_grad()
def generated_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], *, n: int,
    temperature: float, max_new_tokens: int,
) -> int:  # fmt: skip
    """The usual way with transformers: pad the prompts on the left, and call `generate`.

    Draws n responses to each prompt in one batch, and counts their tokens, end tokens included.
    """
    rows = [tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False)["input_ids"] for prompt in prompts]
    length, pad = max(map(len, rows)), model.config.pad_token_id
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    generate: Any = model.generate
    drawn = generate(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), do_sample=True, top_k=0,
        temperature=temperature, max_new_tokens=max_new_tokens, num_return_sequences=n,
    )[:, length:]  # fmt: skip
    ends = (drawn == tokenizer.eos_token_id).long()  # (B, T)
    before_end = ends.cumsum(1) - ends == 0  # with the end token itself
    return int(before_end.sum())
