"""The loop that draws responses to a batch of prompts, token by token.

A row of the batch is a text, with all samples that have it so far: a prompt at first (see `prefill`), and what becomes
of it where samples draw different tokens. So each text is read once, however many samples begin with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from freeprm.engines.base import Sampled, SamplingParams, StopReason
from freeprm.engines.hf.cache import keep, spread
from freeprm.engines.hf.drawing import draw, uniforms
from freeprm.engines.hf.prefill import prefill
from freeprm.engines.hf.text import end_tokens, is_stopped, response_text, stop_position
from freeprm.models.backbone import Backbone
from freeprm.models.stored_logprobs import key_of, noted_of
from freeprm.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A prompt as token ids, and the samples to draw of it in one batch."""

    problem_id: str
    prompt: Prompt
    ids: tuple[int, ...]
    sample_idxs: tuple[int, ...]
    prefix: str = ""
    """The beginning of a response, whose ids are the last ones."""


@torch.inference_mode()
def decode(backbone: Backbone, batch: Sequence[Wanted], *, params: SamplingParams) -> Iterator[Sampled]:
    """Draw every sample of the batch; each is given when it is finished.

    Args:
        backbone: the model; its context must have room for a token behind each prompt.
        batch: prompts with their samples.
        params: how to draw.
    """
    read = prefill(backbone, batch)
    samples = _Samples(backbone, batch, params, n_read=read.n_read)
    n_filled = read.mask.shape[1]
    prompts = torch.arange(len(batch), device=read.mask.device)
    cache = spread(read.cache, prompts, width=n_filled + samples.longest, capacity=len(samples))
    # (U, prompt + response) the attention mask, false on the prompts' padding, which is on the left
    mask = nn.functional.pad(read.mask, (0, samples.longest), value=True)
    logits, position = read.logits, read.mask.sum(-1)  # (U, V), (U,)
    for step in range(samples.longest):
        tokens = samples.draw(step, logits)  # (B,)
        finished = samples.take(step, tokens, logits)  # (B,)
        if bool(finished.any()):
            yield from samples.results(step, finished)
            samples.keep(~finished)
            tokens = tokens[~finished]
            if not len(samples):
                return
        parents, tokens, samples.text = _parted(samples.text, tokens)
        if not _are_the_same(parents, len(position)):
            keep(cache, parents)
            mask, position = mask[parents], position[parents]
        n_filled += 1
        logits = backbone.model(
            input_ids=tokens[:, None], attention_mask=mask[:, :n_filled], position_ids=position[:, None],
            past_key_values=cache, use_cache=True,
        ).logits[:, -1]  # fmt: skip
        position = position + 1


class _Samples:
    """The samples still being drawn: B, fewer with each one that is finished."""

    def __init__(
        self, backbone: Backbone, batch: Sequence[Wanted], params: SamplingParams, *, n_read: Sequence[int]
    ):  # fmt: skip
        device = backbone.model.device
        self._tokenizer, self._params, self._batch = backbone.tokenizer, params, batch
        self._samples = [(problem, index) for problem, wanted in enumerate(batch) for index in wanted.sample_idxs]
        self._n_read = n_read  # of each problem
        rooms = [min(params.max_new_tokens, backbone.reach(len(wanted.ids)) - len(wanted.ids)) for wanted in batch]
        self.longest = max(rooms)
        """Tokens that a response of the batch may have."""
        self.text = torch.tensor([problem for problem, _ in self._samples], device=device)
        """(B,) which of the U texts each sample has so far: its prompt at first."""
        self._room = torch.tensor(rooms, device=device)[self.text]  # (B,)
        self._row = torch.arange(len(self._samples), device=device)  # (B,) index into the samples
        self._tokens = torch.zeros(len(self._samples), self.longest, dtype=torch.long, device=device)
        self._ends = end_tokens(backbone).to(device)
        self._numbers = self._draw_numbers().to(device) if params.temperature > 0 else None
        self._logprobs = torch.zeros(len(self._samples), self.longest, device=device) if params.logprobs else None
        self._of = key_of(backbone.folder, backbone.tokenizer, dtype=backbone.dtype) if params.logprobs else None

    def __len__(self) -> int:
        return len(self._row)

    def draw(self, step: int, logits: Tensor) -> Tensor:
        """(B,) what follows each sample's text, by the (U, V) logits of the texts."""
        numbers = None if self._numbers is None else self._numbers[self._row, step]
        return draw(logits[self.text], numbers, temperature=self._params.temperature, top_p=self._params.top_p)

    def take(self, step: int, tokens: Tensor, logits: Tensor) -> Tensor:
        """Note this step's (B,) tokens and, where asked for, how likely the texts' (U, V) logits make them.

        Returns:
            (B,) bool: this one ended its turn, used up its room, or completed a stop string.
        """
        self._tokens[self._row, step] = tokens
        if self._logprobs is not None:
            self._logprobs[self._row, step] = logits.float().log_softmax(-1)[self.text, tokens]
        finished = torch.isin(tokens, self._ends) | (step + 1 >= self._room)
        if self._params.stop:
            rows, all_ids = self._row.tolist(), self._tokens[self._row, : step + 1].tolist()
            stopped = [self._is_stopped(row, ids) for row, ids in zip(rows, all_ids, strict=True)]
            finished = finished | torch.tensor(stopped, device=finished.device)
        return finished

    def results(self, step: int, finished: Tensor) -> Iterator[Sampled]:
        """Those that have finished."""
        rows = self._row[finished]
        all_ids = self._tokens[rows, : step + 1].tolist()
        ended = torch.isin(self._tokens[rows, step], self._ends).tolist()
        for row, ids, at_end in zip(rows.tolist(), all_ids, ended, strict=True):
            problem, sample_idx = self._samples[row]
            wanted = self._batch[problem]
            text = response_text(self._tokenizer, wanted.ids, ids[:-1] if at_end else ids)
            cut = stop_position(text, self._params.stop)
            yield Sampled(
                problem_id=wanted.problem_id, sample_idx=sample_idx, text=wanted.prefix + text[:cut],
                token_ids=tuple(ids), n_prompt_tokens=len(wanted.ids), n_generated_tokens=len(ids),
                n_read_tokens=self._n_read[problem] if sample_idx == wanted.sample_idxs[0] else 0,
                stop_reason=self._reason(cut is not None, at_end, len(ids)),
                token_logprobs=None if self._logprobs is None else tuple(self._logprobs[row, : len(ids)].tolist()),
                logprobs_of=None if self._of is None else noted_of(self._of, wanted.ids),
            )  # fmt: skip

    def keep(self, kept: Tensor) -> None:
        """Go on with these."""
        self._row, self._room, self.text = self._row[kept], self._room[kept], self.text[kept]

    def _draw_numbers(self) -> Tensor:
        drawn = [
            uniforms(
                self._batch[problem].prompt,
                sample_idx=index,
                seed=self._params.seed,
                count=self.longest,
                prefix=self._batch[problem].prefix,
            )
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


def _parted(texts: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What texts become where samples go on with them in different ways.

    Args:
        texts: (B,) the row of each sample's text.
        tokens: (B,) what it goes on with.

    Returns:
        (U,) the row of the text that each new one goes on with, its own where that can be; (U,) its last token; (B,)
        the row of each sample's new text.
    """
    n_words = tokens.amax() + 1
    pairs, places = torch.unique(texts * n_words + tokens, return_inverse=True)  # in order of texts
    parents = pairs // n_words
    stays = parents < len(pairs)
    stays[1:] &= parents[1:] != parents[:-1]  # the first that goes on with a text has its row
    is_free = torch.ones_like(stays)
    is_free[parents[stays]] = False
    rows = parents.clone()  # of each pair
    rows[~stays] = is_free.nonzero()[:, 0]
    order = rows.argsort()
    return parents[order], (pairs % n_words)[order], rows[places]


def _are_the_same(parents: Tensor, n_rows: int) -> bool:
    """Whether each of so many rows goes on as it is."""
    return len(parents) == n_rows and bool((parents == torch.arange(n_rows, device=parents.device)).all())
