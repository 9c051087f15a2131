"""The loop that draws responses to a batch of prompts, token by token.

Each prompt is encoded once for all of its samples; a finished row leaves the batch at once, and the last
row takes its place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from freeprm.engines.base import Sampled, SamplingParams, StopReason
from freeprm.engines.hf.cache import keep, spread
from freeprm.engines.hf.drawing import draw, uniforms
from freeprm.engines.hf.text import end_tokens, is_stopped, response_text, stop_position
from freeprm.errors import ModelError
from freeprm.models.backbone import Backbone
from freeprm.models.stored_logprobs import key_of
from freeprm.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A prompt as token ids, and the samples to draw of it in one batch."""

    problem_id: str
    prompt: Prompt
    ids: tuple[int, ...]
    sample_idxs: tuple[int, ...]


@torch.inference_mode()
def decode(backbone: Backbone, batch: Sequence[Wanted], *, params: SamplingParams) -> Iterator[Sampled]:
    """Draw every sample of the batch; each is given when it is finished.

    Args:
        backbone: the model; its context must have room for a token behind each prompt.
        batch: prompts with their samples.
        params: how to draw.
    """
    rows = _Rows(backbone, batch, params)
    logits, cache, mask, position = _prefill(backbone, batch, rows.problem, width=rows.longest)
    n_filled = mask.shape[1] - rows.longest
    for step in range(rows.longest):
        tokens = draw(logits, rows.numbers(step), temperature=params.temperature, top_p=params.top_p)  # (B,)
        finished = rows.take(step, tokens, logits)  # (B,)
        if bool(finished.any()):
            yield from rows.results(step, finished)
            kept = _kept(finished)
            if not len(kept):
                return
            rows.keep(kept)
            keep(cache, kept)
            tokens, mask, position = tokens[kept], mask[kept], position[kept]
        n_filled += 1
        logits = backbone.model(
            input_ids=tokens[:, None], attention_mask=mask[:, :n_filled], position_ids=position[:, None],
            past_key_values=cache, use_cache=True,
        ).logits[:, -1]  # fmt: skip
        position = position + 1


class _Rows:
    """The samples still being drawn: B rows, fewer with each one that is finished."""

    def __init__(self, backbone: Backbone, batch: Sequence[Wanted], params: SamplingParams):
        device = backbone.model.device
        self._tokenizer, self._params, self._batch = backbone.tokenizer, params, batch
        self._samples = [(problem, index) for problem, wanted in enumerate(batch) for index in wanted.sample_idxs]
        rooms = [min(params.max_new_tokens, backbone.max_length - len(wanted.ids)) for wanted in batch]
        self.longest = max(rooms)
        """Tokens that a response of the batch may have."""
        self.problem = torch.tensor([problem for problem, _ in self._samples], device=device)
        """(B at the start,) the prompt of each sample."""
        self._room = torch.tensor(rooms, device=device)[self.problem]  # (B,)
        self._row = torch.arange(len(self._samples), device=device)  # (B,) index into the samples
        self._tokens = torch.zeros(len(self._samples), self.longest, dtype=torch.long, device=device)
        self._ends = end_tokens(backbone).to(device)
        self._numbers = self._draw_numbers().to(device) if params.temperature > 0 else None
        self._logprobs = torch.zeros(len(self._samples), self.longest, device=device) if params.logprobs else None
        self._of = key_of(backbone.folder, backbone.tokenizer, dtype=backbone.dtype) if params.logprobs else None

    def numbers(self, step: int) -> Tensor | None:
        """(B,) this step's random numbers; None where none are needed."""
        return None if self._numbers is None else self._numbers[self._row, step]

    def take(self, step: int, tokens: Tensor, logits: Tensor) -> Tensor:
        """Note this step's (B,) tokens and, where asked for, how likely (B, V) logits make them.

        Returns:
            (B,) bool: this one ended its turn, used up its room, or completed a stop string.
        """
        self._tokens[self._row, step] = tokens
        if self._logprobs is not None:
            self._logprobs[self._row, step] = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        finished = torch.isin(tokens, self._ends) | (step + 1 >= self._room)
        if self._params.stop:
            rows, all_ids = self._row.tolist(), self._tokens[self._row, : step + 1].tolist()
            stopped = [self._is_stopped(row, ids) for row, ids in zip(rows, all_ids, strict=True)]
            finished = finished | torch.tensor(stopped, device=finished.device)
        return finished

    def results(self, step: int, finished: Tensor) -> Iterator[Sampled]:
        """The samples of the rows that have finished."""
        rows = self._row[finished]
        all_ids = self._tokens[rows, : step + 1].tolist()
        ended = torch.isin(self._tokens[rows, step], self._ends).tolist()
        for row, ids, at_end in zip(rows.tolist(), all_ids, ended, strict=True):
            problem, sample_idx = self._samples[row]
            wanted = self._batch[problem]
            text = response_text(self._tokenizer, wanted.ids, ids[:-1] if at_end else ids)
            cut = stop_position(text, self._params.stop)
            yield Sampled(
                problem_id=wanted.problem_id, sample_idx=sample_idx, text=text[:cut], token_ids=tuple(ids),
                n_prompt_tokens=len(wanted.ids), n_generated_tokens=len(ids),
                stop_reason=self._reason(cut is not None, at_end, len(ids)),
                token_logprobs=None if self._logprobs is None else tuple(self._logprobs[row, : len(ids)].tolist()),
                logprobs_of=self._of,
            )  # fmt: skip

    def keep(self, kept: Tensor) -> None:
        """Go on with these rows."""
        self._row, self._room = self._row[kept], self._room[kept]

    def _draw_numbers(self) -> Tensor:
        drawn = [
            uniforms(self._batch[problem].prompt, sample_idx=index, seed=self._params.seed, count=self.longest)
            for problem, index in self._samples
        ]
        return torch.from_numpy(np.stack(drawn))  # (samples, longest)

    def _is_stopped(self, row: int, ids: list[int]) -> bool:
        prompt_ids = self._batch[self._samples[row][0]].ids
        return is_stopped(self._tokenizer, prompt_ids, ids, self._params.stop)

    def _reason(self, stopped: bool, at_end: bool, n_tokens: int) -> StopReason:
        if stopped:
            return "stop"
        if at_end:
            return "end"
        return "length" if n_tokens == self._params.max_new_tokens else "context"


def _prefill(
    backbone: Backbone, batch: Sequence[Wanted], problem: Tensor, *, width: int
) -> tuple[Tensor, Cache, Tensor, Tensor]:
    """Encode each prompt once, and spread it over its samples.

    Args:
        backbone: the model.
        batch: P prompts.
        problem: (B,) the prompt of each sample.
        width: tokens that a response may have.

    Returns:
        (B, V) next-token logits; the cache; (B, prompt + width) the attention mask, false on the prompts' padding,
        which is on the left; (B,) the next token's position.

    Raises:
        ModelError: the model keeps its state in another way.
    """
    longest = max(len(wanted.ids) for wanted in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.ones(len(batch), longest + width, dtype=torch.bool)
    for row, wanted in enumerate(batch):
        padding = longest - len(wanted.ids)
        ids[row, padding:] = torch.tensor(wanted.ids)
        mask[row, :padding] = False
    ids, mask = ids.to(backbone.model.device), mask.to(backbone.model.device)
    attended = mask[:, :longest]
    cache = DynamicCache(config=backbone.model.config)
    logits = backbone.model(
        input_ids=ids, attention_mask=attended, position_ids=(attended.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache, use_cache=True, logits_to_keep=1,
    ).logits[:, -1]  # fmt: skip
    if not any(getattr(layer, "is_initialized", False) for layer in cache.layers):
        raise ModelError(
            f"{backbone.source}: a {type(backbone.model).__name__}, which keeps no key-value cache of transformers' "
            "kind; this engine needs one"
        )
    cache_of_samples = spread(cache, problem, width=longest + width)
    return logits[problem], cache_of_samples, mask[problem], attended.sum(-1)[problem]


def _kept(finished: Tensor) -> Tensor:
    """Indices of the rows that go on: the last of them take the places of those that do not."""
    n_kept = int((~finished).sum())
    kept = torch.arange(n_kept, device=finished.device)
    kept[finished[:n_kept]] = n_kept + (~finished[n_kept:]).nonzero()[:, 0]
    return kept
