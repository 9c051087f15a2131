"""Samples that are continued on demand, each from its own keys and values, and so may be left unfinished.

A sample's random numbers are those of its index, so it becomes, token for token, what `decoding` draws at once, up to
the rounding of another batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import LongTensor, Tensor
from transformers.cache_utils import Cache, DynamicLayer

from freeprm.engines.base import Sampled, SamplingParams, StopReason
from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.drawing import draw, end_tokens, is_stopped, response_text, stop_position, uniforms
from freeprm.models.kv_cache import Slots, SlotTable, plain_layers
from freeprm.models.lengths import alike
from freeprm.models.loading import Backbone

_CPU_ROWS, _GPU_ROWS = 256, 1024  # samples continued at a time
_STRETCH = 32  # tokens before rows are gathered again, so that a batch needs no room for whole responses
_HALF_CHARACTER = "\ufffd"


@dataclass(slots=True, eq=False)
class Draft:
    """An unfinished sample."""

    wanted: Wanted
    sample_idx: int
    room: int
    """Maximum of tokens."""
    past: Slots
    """Cache slots of the tokens read: all of prompt and sample but the last."""
    numbers: NDArray[np.float32]
    """(room,) random numbers of its tokens."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Of `ids` under the model itself."""
    stop_reason: StopReason | None = None
    """None while it can be continued."""
    seed: int = 0
    """Of its random numbers."""
    n_given: int = 0
    """Of `ids`, the first ones that were drawn for another sample that it goes on from."""


class Writer:
    """Continues samples with one causal language model.

    Args:
        backbone: the model; all of its layers must keep keys and values.
        params: how tokens are drawn; log-probabilities are always noted.
        keeps_finished: keep what was read of finished samples too, so that others can go on from their steps.

    Raises:
        ModelError: the model keeps other state.
    """

    def __init__(self, backbone: Backbone, *, params: SamplingParams, keeps_finished: bool = False):
        self._backbone, self._params, self._keeps_finished = backbone, params, keeps_finished
        device = backbone.model.device
        self._slots = SlotTable(
            backbone.model, name=backbone.source,
            refusal="its samples cannot be written piece by piece. Draw them whole: freeprm sample",
        )  # fmt: skip
        self._ends = end_tokens(backbone).to(device)
        self._max_rows = _CPU_ROWS if device.type == "cpu" else _GPU_ROWS
        self.capacity = self._slots.capacity
        """Tokens of prompts and samples that fit the memory."""

    def room(self, wanted: Wanted) -> int:
        """Maximum of tokens of a sample."""
        n_prompt = len(wanted.ids)
        return min(self._params.max_new_tokens, self._backbone.reach(n_prompt) - n_prompt)

    def open(self, wanted: Wanted) -> list[Draft]:
        """Read a prompt; its samples, still empty."""
        # With the last token, though it is read again: a kernel may depend on the length.
        past, last = np.split(self._slots.read(wanted.ids), [-1])
        self._slots.free(last)
        room = self.room(wanted)
        return [
            Draft(
                wanted=wanted,
                sample_idx=index,
                room=room,
                past=past,
                numbers=uniforms(wanted.prompt, sample_idx=index, seed=self._params.seed, count=room),
                seed=self._params.seed,
            )
            for index in wanted.sample_idxs
        ]

    @torch.inference_mode()
    def write(self, drafts: Sequence[Draft], is_enough: Callable[[Draft], bool]) -> None:
        """Continue each sample until it is finished or `is_enough`, which is called after each token."""
        waiting = list(drafts)
        while waiting:
            waiting.sort(key=lambda draft: len(draft.past))
            batches = [
                part[start : start + self._max_rows]
                for part in alike(waiting, self._backbone.model.config, length=lambda draft: len(draft.wanted.ids))
                for start in range(0, len(part), self._max_rows)
            ]  # of similar length
            waiting = [draft for batch in batches for draft in self._stretch(batch, is_enough)]

    def text(self, draft: Draft) -> str:
        """A sample's text so far; the response, if it is finished."""
        ids = draft.ids[:-1] if draft.stop_reason == "end" else draft.ids
        text = response_text(self._backbone.tokenizer, draft.wanted.ids, ids)
        return text[: stop_position(text, self._params.stop)]

    def sampled(self, draft: Draft) -> Sampled:
        """The sample so far."""
        return Sampled(
            problem_id=draft.wanted.problem_id, sample_idx=draft.sample_idx, text=self.text(draft),
            stop_reason=draft.stop_reason or "abandoned", token_ids=tuple(draft.ids),
            n_prompt_tokens=len(draft.wanted.ids), n_generated_tokens=len(draft.ids),
            token_logprobs=tuple(draft.logprobs),
        )  # fmt: skip

    def settled_text(self, draft: Draft) -> str:
        """The part of the text that cannot change: no incomplete character, nor the beginning of a stop string."""
        text = self.text(draft).rstrip(_HALF_CHARACTER)
        held = max(map(len, self._params.stop), default=1) - 1
        return text[: max(0, len(text) - held)]

    def close(self, drafts: Sequence[Draft]) -> None:
        """Free the slots of all samples of a prompt."""
        self._slots.free(np.unique(np.concatenate([draft.past for draft in drafts])))

    def _stretch(self, drafts: Sequence[Draft], is_enough: Callable[[Draft], bool]) -> list[Draft]:
        """Continue by up to `_STRETCH` tokens; returns the samples that need more."""
        device = self._backbone.model.device
        pasts = [len(draft.past) for draft in drafts]
        past = max(pasts)
        cache: Cache
        cache, mask = self._slots.gather([draft.past for draft in drafts], width=_STRETCH)
        if past:
            cache = Cache(layers=[_Widened(layer, past + _STRETCH) for layer in plain_layers(cache)])
        numbers = torch.from_numpy(np.stack([_next_numbers(draft) for draft in drafts])).to(device)
        last = [draft.ids[-1] if draft.ids else draft.wanted.ids[-1] for draft in drafts]
        tokens, position = torch.tensor(last, device=device), torch.tensor(pasts, device=device)
        rows = list(drafts)
        for step in range(_STRETCH):
            logits = self._backbone.model(
                input_ids=tokens[:, None], attention_mask=mask[:, : past + step + 1], position_ids=position[:, None],
                past_key_values=cache, use_cache=True,
            ).logits[:, -1]  # fmt: skip
            self._slots.check(cache, past + step + 1)
            tokens = draw(
                logits,
                numbers[:, step] if self._params.temperature > 0 else None,
                temperature=self._params.temperature,
                top_p=self._params.top_p,
            )
            logprobs = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            self._note(rows, tokens, logprobs)
            stays = [draft.stop_reason is None and not is_enough(draft) for draft in rows]
            if step + 1 < _STRETCH and all(stays):
                position = position + 1
                continue
            is_last = step + 1 == _STRETCH
            leaving = [
                (draft.stop_reason is None or self._keeps_finished) and (is_last or not stay)
                for draft, stay in zip(rows, stays, strict=True)
            ]
            self._keep(cache, past, rows, [(step + 1) * leaves for leaves in leaving])
            rows = [draft for draft, stay in zip(rows, stays, strict=True) if stay]
            if is_last or not rows:
                return rows
            kept = torch.tensor(stays, device=device).nonzero()[:, 0]
            cache.reorder_cache(cast(LongTensor, kept))
            tokens, mask, position, numbers = tokens[kept], mask[kept], position[kept] + 1, numbers[kept]
        return rows

    def _note(self, rows: Sequence[Draft], tokens: Tensor, logprobs: Tensor) -> None:
        """Append each row's new token, and set its stop reason if it is the last."""
        ends = torch.isin(tokens, self._ends).tolist()
        for draft, token, logprob, at_end in zip(rows, tokens.tolist(), logprobs.tolist(), ends, strict=True):
            draft.ids.append(token)
            draft.logprobs.append(logprob)
            stop = self._params.stop
            if at_end:
                draft.stop_reason = "end"
            elif stop and is_stopped(self._backbone.tokenizer, draft.wanted.ids, draft.ids, stop):
                draft.stop_reason = "stop"
            elif len(draft.ids) == draft.room:
                draft.stop_reason = "length" if draft.room == self._params.max_new_tokens else "context"

    def _keep(self, cache: Cache, past: int, rows: Sequence[Draft], lengths: Sequence[int]) -> None:
        if any(lengths):
            for draft, slots in zip(rows, self._slots.keep(cache, past, lengths), strict=True):
                draft.past = np.concatenate([draft.past, slots])


def _next_numbers(draft: Draft) -> NDArray[np.float32]:
    """(stretch,) numbers, zero beyond the sample's room."""
    numbers = draft.numbers[len(draft.ids) : len(draft.ids) + _STRETCH]
    return np.pad(numbers, (0, _STRETCH - len(numbers)))


class _Widened(DynamicLayer):
    """One layer's keys and values, (B, heads, width, head size), with new ones written in place."""

    def __init__(self, filled: DynamicLayer, width: int):
        super().__init__()
        assert filled.keys is not None
        assert filled.values is not None
        self.dtype, self.device = filled.keys.dtype, filled.keys.device
        self._all = tuple(_wide(states, width) for states in (filled.keys, filled.values))
        self.is_initialized = True
        self._show(*filled.keys.shape[::2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens; returns views of all."""
        n_rows, start = len(key_states), self.get_seq_length()
        stop = start + key_states.shape[-2]
        for states, new in zip(self._all, (key_states, value_states), strict=True):
            states[:n_rows, :, start:stop] = new
        self._show(n_rows, stop)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows of these ascending indices; only rows that move are copied."""
        n_rows, length = len(beam_idx), self.get_seq_length()
        moved = (beam_idx != torch.arange(n_rows, device=beam_idx.device)).nonzero()[:, 0]
        for states in self._all:
            states[moved, :, :length] = states[beam_idx[moved], :, :length]
        self._show(n_rows, length)

    def _show(self, n_rows: int, length: int) -> None:
        self.keys, self.values = (states[:n_rows, :, :length] for states in self._all)


def _wide(states: Tensor, width: int) -> Tensor:
    n_rows, n_heads, length, head_size = states.shape
    wide = states.new_empty(n_rows, n_heads, width, head_size)
    wide[:, :, :length] = states
    return wide
