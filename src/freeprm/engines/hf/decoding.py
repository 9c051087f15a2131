"""The loop that draws responses, token by token: a sample that ends makes room for the next one.

A row of a pass is a text shared by all samples that are equal so far: a prompt at first (see `prefill`), which splits
when samples draw different tokens. So each text is read once, however many samples begin with it.

Which prompts are encoded together, and how many samples are drawn at a time, is planned from all samples of a run,
drawn already or not, so that a resumed run computes the missing ones as an uninterrupted run does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from freeprm.engines.base import Sampled, SamplingParams, StopReason
from freeprm.engines.hf.cache import cached_texts
from freeprm.engines.hf.drawing import (
    draw,
    end_tokens,
    is_stopped,
    response_text,
    sample_identity,
    stop_position,
    uniforms,
)
from freeprm.engines.hf.prefill import Prefilled, prefill
from freeprm.models.loading import Backbone
from freeprm.models.reference_logprobs import key_of, noted_of
from freeprm.types import Prompt

_ENTERING = 8  # an eighth of the samples enters at a time: fewer prefills, at the price of slots that wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A prompt as token ids, with its samples."""

    problem_id: str
    prompt: Prompt
    ids: tuple[int, ...]
    sample_idxs: tuple[int, ...]
    done: frozenset[int] = frozenset()
    """Of these, the ones drawn already."""
    prefix: str = ""
    """The beginning of a response; its ids are the last of `ids`."""


class Room(NamedTuple):
    """Maxima for one process; decided by all samples of a run, so that a resumed run has the same."""

    samples: int
    """Drawn at a time."""
    tokens: int
    """Of prompt and response."""


def no_count(n_tokens: int) -> None:
    """No-op progress callback."""


@torch.inference_mode()
def decode(
    backbone: Backbone, groups: Iterable[Sequence[Wanted]], *, params: SamplingParams, room: Room,
    count: Callable[[int], None] = no_count,
) -> Iterator[Sampled]:  # fmt: skip
    """Draw every missing sample; each is yielded when it is finished.

    Args:
        backbone: the model; its context must have room for a token behind each prompt.
        groups: prompts that are encoded together, taken when there is room for their samples.
        params: how to draw.
        room: for all groups.
        count: called with the number of tokens drawn in each step.
    """
    texts = cached_texts(backbone, capacity=room.samples, width=room.tokens)
    waiting = _Waiting(backbone, groups, at_once=max(1, room.samples // _ENTERING))
    samples = _Samples(backbone, params, room.samples)
    logits: Tensor | None = None  # (U, V) behind each text
    while True:
        while entering := waiting.take(samples.n_free):
            read, items = entering
            which = sorted({prompt for prompt, _, _ in items})
            texts.enter(read.cache, which, read.mask.sum(-1).tolist())
            first = 0 if logits is None else len(logits)
            rows = {prompt: first + row for row, prompt in enumerate(which)}
            samples.enter(
                [(wanted, sample_idx, read.n_read[prompt]) for prompt, wanted, sample_idx in items],
                texts=[rows[prompt] for prompt, _, _ in items],
            )
            new = read.logits[which]
            logits = new if logits is None else torch.cat([logits, new])
        if logits is None:
            return
        tokens = samples.draw(logits)  # (B,)
        finished = samples.take(tokens, logits)  # (B,)
        count(len(tokens))
        if bool(finished.any()):
            yield from samples.leave(finished)
            tokens = tokens[~finished]
        parents, tokens, samples.text = _parted(samples.text, tokens)
        texts.part(parents)
        logits = texts.read(tokens) if len(tokens) else None


class _Waiting:
    """Samples that are not begun; the prompts of the current group are encoded."""

    def __init__(self, backbone: Backbone, groups: Iterable[Sequence[Wanted]], *, at_once: int):
        self._backbone, self._groups, self._at_once = backbone, iter(groups), at_once
        self._read: Prefilled | None = None
        self._items: list[tuple[int, Wanted, int]] = []  # of the current group: prompt, and sample

    def take(self, n_free: int) -> tuple[Prefilled, list[tuple[int, Wanted, int]]] | None:
        """Samples to begin now, with their encoded prompts; None if none are left or more slots should be free."""
        if n_free < self._at_once:
            return None
        if not self._items:
            group = next(self._groups, None)
            if group is None:
                return None
            self._read = prefill(self._backbone, group)
            self._items = [
                (prompt, wanted, index)
                for prompt, wanted in enumerate(group)
                for index in wanted.sample_idxs
                if index not in wanted.done
            ]
        if n_free < min(self._at_once, len(self._items)):
            return None
        assert self._read is not None
        entering, self._items = self._items[:n_free], self._items[n_free:]
        return self._read, entering


class _Samples:
    """The B samples being drawn, each with a slot of the buffers."""

    def __init__(self, backbone: Backbone, params: SamplingParams, n_slots: int):
        device = backbone.model.device
        self._backbone, self._params = backbone, params
        longest = min(params.max_new_tokens, backbone.max_length)
        self._free = list(range(n_slots))[::-1]
        self._samples: list[tuple[Wanted, int, int]] = [_NOTHING] * n_slots
        self._slot = torch.zeros(0, dtype=torch.long, device=device)  # (B,)
        self.text = torch.zeros(0, dtype=torch.long, device=device)
        """(B,) index of each sample's text among the U texts: its prompt at first."""
        self._length, self._room = torch.zeros(2, n_slots, dtype=torch.long, device=device)
        self._tokens = torch.zeros(n_slots, longest, dtype=torch.long, device=device)
        self._ends = end_tokens(backbone).to(device)
        self._numbers = torch.zeros(n_slots, longest, device=device) if params.temperature > 0 else None
        self._logprobs = torch.zeros(n_slots, longest, device=device) if params.logprobs else None
        self._of = key_of(backbone.folder, backbone.tokenizer, dtype=backbone.dtype) if params.logprobs else None

    @property
    def n_free(self) -> int:
        return len(self._free)

    def enter(self, samples: Sequence[tuple[Wanted, int, int]], *, texts: Sequence[int]) -> None:
        """Begin samples.

        Args:
            samples: prompt, index, and the tokens of the prompt that were read for the sample.
            texts: index of each one's prompt among the texts.
        """
        slots = [self._free.pop() for _ in samples]
        rooms = [
            min(self._params.max_new_tokens, self._backbone.reach(len(wanted.ids)) - len(wanted.ids))
            for wanted, _, _ in samples
        ]
        for slot, sample in zip(slots, samples, strict=True):
            self._samples[slot] = sample
        new, text, room = self._slot.new_tensor([slots, texts, rooms])
        self._slot, self.text = torch.cat([self._slot, new]), torch.cat([self.text, text])
        self._length[new], self._room[new] = 0, room
        if self._numbers is not None:
            drawn = np.zeros((len(samples), self._numbers.shape[1]), dtype=np.float32)
            for row, ((wanted, index, _), count) in enumerate(zip(samples, rooms, strict=True)):
                drawn[row, :count] = uniforms(
                    wanted.prompt, sample_idx=index, seed=self._params.seed, count=count, prefix=wanted.prefix
                )
            self._numbers[new] = torch.from_numpy(drawn).to(new.device)

    def draw(self, logits: Tensor) -> Tensor:
        """(B,) the next token of each sample, from the (U, V) logits of the texts."""
        numbers = None if self._numbers is None else self._numbers[self._slot, self._length[self._slot]]
        params = self._params
        return draw(logits, numbers, temperature=params.temperature, top_p=params.top_p, of=self.text)

    def take(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Append this step's (B,) tokens and, if requested, their log-probabilities under the (U, V) logits.

        Returns:
            (B,) bool: the sample ended its turn, used up its room, or completed a stop string.
        """
        slot, length = self._slot, self._length[self._slot]
        self._tokens[slot, length] = tokens
        if self._logprobs is not None:
            logits = logits.float()
            self._logprobs[slot, length] = logits[self.text, tokens] - logits.logsumexp(-1)[self.text]
        self._length[slot] = length = length + 1
        finished: Tensor = torch.isin(tokens, self._ends) | (length >= self._room[slot])
        if self._params.stop:
            slots, lengths = slot.tolist(), length.tolist()
            stopped = [self._is_stopped(slot, n) for slot, n in zip(slots, lengths, strict=True)]
            finished = finished | torch.tensor(stopped, device=finished.device)
        return finished

    def leave(self, finished: Tensor) -> Iterator[Sampled]:
        """Remove and return the finished samples."""
        slots = self._slot[finished].tolist()
        self._slot, self.text = self._slot[~finished], self.text[~finished]
        for slot in slots:
            yield self._sampled(slot)
        self._free += slots

    def _sampled(self, slot: int) -> Sampled:
        wanted, sample_idx, n_read = self._samples[slot]
        length = int(self._length[slot])
        ids = self._tokens[slot, :length].tolist()
        at_end = bool(torch.isin(self._tokens[slot, length - 1], self._ends))
        text = response_text(self._backbone.tokenizer, wanted.ids, ids[:-1] if at_end else ids)
        cut = stop_position(text, self._params.stop)
        return Sampled(
            problem_id=wanted.problem_id, sample_idx=sample_idx, text=wanted.prefix + text[:cut],
            token_ids=tuple(ids), n_prompt_tokens=len(wanted.ids), n_generated_tokens=length,
            n_read_tokens=n_read if sample_idx == wanted.sample_idxs[0] else 0,
            stop_reason=self._reason(cut is not None, at_end, length),
            token_logprobs=None if self._logprobs is None else tuple(self._logprobs[slot, :length].tolist()),
            logprobs_of=None if self._of is None else noted_of(self._of, wanted.ids),
        )  # fmt: skip

    def _is_stopped(self, slot: int, length: int) -> bool:
        ids = self._tokens[slot, :length].tolist()
        return is_stopped(self._backbone.tokenizer, self._samples[slot][0].ids, ids, self._params.stop)

    def _reason(self, stopped: bool, at_end: bool, n_tokens: int) -> StopReason:
        if stopped:
            return "stop"
        if at_end:
            return "end"
        return "length" if n_tokens == self._params.max_new_tokens else "context"


_NOTHING = (Wanted(problem_id="", prompt="", ids=(), sample_idxs=()), 0, 0)


def _parted(texts: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split texts whose samples drew different tokens.

    Args:
        texts: (B,) row of each sample's text.
        tokens: (B,) its next token.

    Returns:
        (U,) row of the parent of each new text, the same row if possible; (U,) its last token; (B,) row of each
        sample's new text.
    """
    if not len(tokens):
        return texts, tokens, texts
    n_words = tokens.amax() + 1
    pairs, pair_of = torch.unique(texts * n_words + tokens, return_inverse=True)  # in order of texts
    parents = pairs // n_words
    stays = parents < len(pairs)
    stays[1:] &= parents[1:] != parents[:-1]  # the first child of a text keeps its row
    is_free = torch.ones_like(stays)
    is_free[parents[stays]] = False
    rows = parents.clone()  # of each pair
    rows[~stays] = is_free.nonzero()[:, 0]
    order = rows.argsort()
    return parents[order], (pairs % n_words)[order], rows[pair_of]


_PREFILL_TOKENS = 32_768  # of prompts encoded together, padding included
_PARTS = 8  # prompts are encoded for an eighth of the samples that are drawn at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingLimits:
    """Limits of what is drawn at a time."""

    max_samples: int
    cache_bytes: int
    """Memory of the key-value cache."""
    bytes_per_token: int
    """Of the cache, for one sample."""
    max_new_tokens: int
    max_length: int
    """Tokens of a text; see `Backbone.reach`."""


class Plan(NamedTuple):
    """See `plan`."""

    groups: list[list[Wanted]]
    """Prompts that are encoded together, in order."""
    room: Room


def plan(wanted: Sequence[Wanted], limits: DrawingLimits, *, n_workers: int = 1) -> Plan:
    """Groups of prompts, longest first, so that a lack of memory shows at once.

    Beginnings of responses to one prompt are grouped, so that their common part is encoded once.
    """
    n_samples = sum(len(item.sample_idxs) for item in wanted)
    longest = max((len(item.ids) for item in wanted), default=0)
    tokens = min(longest + limits.max_new_tokens, limits.max_length)
    fitting = limits.cache_bytes // (limits.bytes_per_token * max(1, tokens))
    room = Room(samples=max(1, min(limits.max_samples, fitting, ceil(n_samples / n_workers))), tokens=tokens)
    return Plan(_groups(wanted, room), room)


def _groups(wanted: Sequence[Wanted], room: Room) -> list[list[Wanted]]:
    in_families = any(item.prefix for item in wanted)
    groups: list[list[Wanted]] = []
    longest = n_samples = 0
    for item in _in_families(wanted) if in_families else sorted(wanted, key=lambda item: -len(item.ids)):
        group = groups[-1] if groups else []
        longest, n_samples = max(longest, len(item.ids)), n_samples + len(item.sample_idxs)
        if in_families:
            together = bool(group) and _family(group[0]) == _family(item)
        else:
            together = n_samples <= room.samples // _PARTS
        if room.samples > 1 and group and together and longest * (len(group) + 1) <= _PREFILL_TOKENS:
            group.append(item)
        else:
            groups.append([item])
            longest, n_samples = len(item.ids), len(item.sample_idxs)
    return groups


def _in_families(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Grouped by prompt, in order of their ids."""
    families: dict[bytes, list[Wanted]] = {}
    for item in wanted:
        families.setdefault(_family(item), []).append(item)
    longest_first = sorted(families.values(), key=lambda family: -max(len(item.ids) for item in family))
    return [item for family in longest_first for item in sorted(family, key=lambda item: (item.ids, item.problem_id))]


def _family(item: Wanted) -> bytes:
    return sample_identity(item.prompt, sample_idx=0, seed=0)
