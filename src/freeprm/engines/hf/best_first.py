"""Best-of-N by a reward model while the samples are being drawn: a sample that has fallen behind is not finished.

Each sample is written on when asked, from its own kept keys and values. Its random numbers are those of its place, so
it becomes, token for token, what `decoding` draws at once, up to the rounding of another batch.

The search is that of `core.early_stopping`, for several problems side by side. A sample's step is scored once its end
is settled (see `core.steps`), as part of the text that stands then; so it is the step, and has the tokens, that it
has in the finished response, and what is chosen is what complete sampling and scoring would choose.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import LongTensor, Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer

from freeprm.core.early_stopping import BestFirst, Step
from freeprm.core.steps import check_settling, settled_steps, splitter, token_spans
from freeprm.engines.base import Sampled, SamplingParams, StopReason
from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.drawing import draw, end_tokens, is_stopped, response_text, stop_position, uniforms
from freeprm.errors import ConfigError, ModelError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.incremental import ReadPrompt, Stepped, StepwiseRewards
from freeprm.models.kv_cache import Slots, SlotTable, n_kept_layers, plain_layers
from freeprm.models.lengths import alike
from freeprm.models.loading import Backbone
from freeprm.types import Rollout, Span

_CPU_ROWS, _GPU_ROWS = 256, 1024  # samples written on at a time
_STRETCH = 32  # tokens after which rows are gathered anew, so that a batch need not have room for whole responses
_HALF_CHARACTER = "\ufffd"


@dataclass(slots=True, eq=False)
class Draft:
    """A sample that is being written."""

    wanted: Wanted
    sample_idx: int
    room: int
    """Tokens that it may have."""
    past: Slots
    """Of the tokens that were read: of prompt and sample all but the last."""
    numbers: NDArray[np.float32]
    """(room,) what decides its tokens."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Of `ids` under the model itself."""
    stop_reason: StopReason | None = None
    """None while it can be written on."""


class Writer:
    """Writes samples on with one causal language model.

    Args:
        backbone: the model; all of its layers must keep keys and values.
        params: how tokens are drawn; `logprobs` is not looked at, they are noted.

    Raises:
        ModelError: the model keeps its state in another way.
    """

    def __init__(self, backbone: Backbone, *, params: SamplingParams):
        self._backbone, self._params = backbone, params
        device = backbone.model.device
        n_layers = n_kept_layers(backbone.model)
        if n_layers is None:
            raise self._unsuited()
        self._n_layers = n_layers
        self._slots = SlotTable(device)
        self._ends = end_tokens(backbone).to(device)
        self._max_rows = _CPU_ROWS if device.type == "cpu" else _GPU_ROWS
        self._slots.free(self._read([0]))  # a token on trial shows what the model keeps, and how large it is
        self.capacity = self._slots.capacity
        """Tokens, of prompts and samples, that there is memory for."""

    def room(self, wanted: Wanted) -> int:
        """Tokens that a sample may have."""
        n_prompt = len(wanted.ids)
        return min(self._params.max_new_tokens, self._backbone.reach(n_prompt) - n_prompt)

    def open(self, wanted: Wanted) -> list[Draft]:
        """The samples of a prompt, without a token as yet; the prompt is read."""
        # With the last token, though it is read again: how a text is read may depend on its length.
        past, last = np.split(self._read(wanted.ids), [-1])
        self._slots.free(last)
        room = self.room(wanted)
        return [
            Draft(wanted=wanted, sample_idx=index, room=room, past=past, numbers=self._numbers(wanted, index, room))
            for index in wanted.sample_idxs
        ]

    @torch.inference_mode()
    def write(self, drafts: Sequence[Draft], is_enough: Callable[[Draft], bool]) -> None:
        """Write each sample on until it is finished or there is enough, which is asked after each token."""
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
        """What a sample says so far; of a finished one, its response."""
        ids = draft.ids[:-1] if draft.stop_reason == "end" else draft.ids
        text = response_text(self._backbone.tokenizer, draft.wanted.ids, ids)
        return text[: stop_position(text, self._params.stop)]

    def settled_text(self, draft: Draft) -> str:
        """What the response begins with for certain: no character that lacks bytes, nor what may open a stop string."""
        text = self.text(draft).rstrip(_HALF_CHARACTER)
        held = max(map(len, self._params.stop), default=1) - 1
        return text[: max(0, len(text) - held)]

    def close(self, drafts: Sequence[Draft]) -> None:
        """Forget the samples of a prompt, all of them; their slots are used again."""
        used = np.unique(np.concatenate([draft.past for draft in drafts]))
        self._slots.free(used)

    def _stretch(self, drafts: Sequence[Draft], is_enough: Callable[[Draft], bool]) -> list[Draft]:
        """Write on by some tokens; gives the samples that have not had enough."""
        device = self._backbone.model.device
        pasts = [len(draft.past) for draft in drafts]
        past = max(pasts)
        cache, mask = self._gather([draft.past for draft in drafts], past)
        numbers = torch.from_numpy(np.stack([_next_numbers(draft) for draft in drafts])).to(device)
        last = [draft.ids[-1] if draft.ids else draft.wanted.ids[-1] for draft in drafts]
        tokens, position = torch.tensor(last, device=device), torch.tensor(pasts, device=device)
        rows = list(drafts)
        for step in range(_STRETCH):
            logits = self._backbone.model(
                input_ids=tokens[:, None], attention_mask=mask[:, : past + step + 1], position_ids=position[:, None],
                past_key_values=cache, use_cache=True,
            ).logits[:, -1]  # fmt: skip
            self._check(cache, past + step + 1)
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
                draft.stop_reason is None and (is_last or not stay) for draft, stay in zip(rows, stays, strict=True)
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
        """Each row's new token, and whether it is its last."""
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

    def _gather(self, pasts: Sequence[Slots], past: int) -> tuple[Cache, Tensor]:
        """What rows have read, padded on the left, with room on the right; and (B, past + room) what is no padding."""
        device = self._backbone.model.device
        places = np.zeros((len(pasts), past), dtype=np.int64)  # slot 0 is padding
        mask = np.ones((len(pasts), past + _STRETCH), dtype=np.bool_)
        for row, slots in enumerate(pasts):
            places[row, past - len(slots) :] = slots
            mask[row, : past - len(slots)] = False
        cache: Cache = self._slots.gather(places)
        if past:
            cache = Cache(layers=[_Widened(layer, past + _STRETCH) for layer in plain_layers(cache)])
        return cache, torch.from_numpy(mask).to(device)

    @torch.inference_mode()
    def _read(self, ids: Sequence[int]) -> Slots:
        """Slots of a prompt's tokens."""
        if not ids:
            return np.empty(0, dtype=np.int64)
        cache = self._slots.gather(np.empty((1, 0), dtype=np.int64))
        given = torch.tensor([list(ids)], device=self._backbone.model.device)
        self._backbone.model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._check(cache, len(ids))
        (slots,) = self._slots.keep(cache, 0, [len(ids)])
        return slots

    def _numbers(self, wanted: Wanted, sample_idx: int, room: int) -> NDArray[np.float32]:
        return uniforms(wanted.prompt, sample_idx=sample_idx, seed=self._params.seed, count=room)

    def _check(self, cache: Cache, length: int) -> None:
        layers = plain_layers(cache)
        if len(layers) != self._n_layers or any(layer.get_seq_length() != length for layer in layers):
            raise self._unsuited()

    def _unsuited(self) -> ModelError:
        return ModelError(
            f"{self._backbone.source}: a {type(self._backbone.model).__name__}, whose layers do not all keep keys and "
            "values in transformers' way; its samples cannot be written piece by piece. Draw them whole: leave out "
            "--early-stop"
        )


def _next_numbers(draft: Draft) -> NDArray[np.float32]:
    """(stretch,) zeros where the sample has no more room."""
    numbers = draft.numbers[len(draft.ids) : len(draft.ids) + _STRETCH]
    return np.pad(numbers, (0, _STRETCH - len(numbers)))


class _Widened(DynamicLayer):
    """One layer's keys and values, (B, heads, width, head size), written in place behind those that are there."""

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
        """Write the new tokens, and return views of all."""
        n_rows, start = len(key_states), self.get_seq_length()
        stop = start + key_states.shape[-2]
        for states, new in zip(self._all, (key_states, value_states), strict=True):
            states[:n_rows, :, start:stop] = new
        self._show(n_rows, stop)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows of these indices, in rising order; only those that change place are copied."""
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


ROWS = 256
"""Samples that are written on at a time, over all problems, once each has been begun."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How samples are scored."""

    rewards: StepwiseRewards
    tokenizer: PreTrainedTokenizerBase
    """Of the reward model."""
    max_length: int
    """Tokens that its context holds; a longer response cannot be scored, and is never chosen."""
    splitter: str
    """A name in `core.steps.SETTLING`."""
    reference_draws: bool = False
    """The model that draws is the reference, so that its log-probabilities are known."""

    def __post_init__(self) -> None:
        check_settling(self.splitter)


class Written(NamedTuple):
    """A sample as far as it was written."""

    sampled: Sampled
    step_scores: tuple[float, ...] | None
    """Of its steps that were scored, all of a finished one's; None where it cannot be scored: empty, or too long."""


class Decided(NamedTuple):
    """A problem's samples, and which one is the best."""

    problem_id: str
    samples: tuple[Written, ...]
    best: int | None
    """A place among the samples; None where none can be scored."""


def search(
    problems: Iterable[Wanted], *, writer: Writer, judge: Judge, batch: int = 1, rows: int = ROWS
) -> Iterator[Decided]:
    """The best sample of each problem by the lowest step reward, as it is decided.

    Args:
        problems: taken as there is room for them.
        writer: draws.
        judge: scores.
        batch: samples of a problem that are written on in a round. 1 draws least.
        rows: see `ROWS`; `rows / batch` problems are open at a time, fewer where they would not fit the memory.

    Raises:
        ConfigError: a batch or rows below 1.
        ModelError: the reward model's tokenizer reads the beginning of a text otherwise once more of it is there.
    """
    if min(batch, rows) < 1:
        raise ConfigError(f"batch: is {batch}, of {rows} rows; expected 1 or more")
    waiting = iter(problems)
    following = next(waiting, None)
    is_open: list[_Open] = []
    room = _Room(writer, judge)
    while following or is_open:
        while following and len(is_open) < max(1, rows // batch) and room.holds(following, len(is_open)):
            is_open.append(_Open(following, writer, batch))
            following = next(waiting, None)
        wanted = [sample for one in is_open for sample in one.wanted()]
        writer.write([sample.draft for sample in wanted], _Enough(wanted, writer, judge.splitter))
        _score(wanted, writer, judge)
        for one in is_open:
            one.take()
        for one in [one for one in is_open if one.is_over]:
            is_open.remove(one)
            yield one.close(writer, judge, room)


class _Sample:
    """A sample with what is known of its steps."""

    def __init__(self, draft: Draft, prompts: dict[bytes, ReadPrompt], noted: dict[bytes, Tensor]):
        self.draft, self.prompts, self._noted = draft, prompts, noted
        self.scores: list[float] = []
        self.stepped: Stepped | None = None  # the steps that were scored, and the tokens up to their end
        self.is_out = False
        self.name = f"problem {draft.wanted.problem_id!r}, sample {draft.sample_idx}"

    def rollout(self, text: str) -> Rollout:
        """As the reward model is to read it."""
        return Rollout(
            problem_id=self.draft.wanted.problem_id, sample_idx=self.draft.sample_idx, prompt=self.draft.wanted.prompt,
            response=text, truncated=self.draft.stop_reason not in ("end", "stop"),
        )  # fmt: skip

    def known(self, stepped: Stepped, step: int) -> Tensor | None:
        """The log-probabilities of a step's tokens from when they were drawn; None where it is read as others.

        For samples that begin alike they are the first one's, so that equal steps have equal rewards to the last bit.
        """
        start, stop = stepped.steps[step]
        n_prompt, ids = len(self.draft.wanted.ids), [*self.draft.wanted.ids, *self.draft.ids]
        encoded = stepped.encoded
        if encoded.n_prompt != n_prompt or encoded.ids[: n_prompt + stop].tolist() != ids[: n_prompt + stop]:
            return None
        return self._noted.setdefault(stepped.prefix(step), torch.tensor(self.draft.logprobs[start:stop]))


class _Open:
    """A problem that is being decided."""

    def __init__(self, wanted: Wanted, writer: Writer, batch: int):
        prompts: dict[bytes, ReadPrompt] = {}  # one, but where a token straddles the boundary to the response
        noted: dict[bytes, Tensor] = {}
        self._samples = [_Sample(draft, prompts, noted) for draft in writer.open(wanted)]
        self._search = BestFirst(len(self._samples), batch=batch)
        self._taken = [0] * len(self._samples)
        self._written: list[int] = []

    @property
    def is_over(self) -> bool:
        """The best is found, or there is none."""
        return not self._search.wanted()

    def wanted(self) -> list[_Sample]:
        """Samples to be written on."""
        self._written = self._search.wanted()
        return [self._samples[index] for index in self._written]

    def take(self) -> None:
        """Note what was written and scored."""
        for index in self._written:
            sample = self._samples[index]
            if sample.is_out:
                self._search.drop(index)
                continue
            new = sample.scores[self._taken[index] :]  # more than one where a token ended several
            self._taken[index] = len(sample.scores)
            self._search.take({index: Step(min(new), sample.draft.stop_reason is not None)})

    def close(self, writer: Writer, judge: Judge, room: "_Room") -> Decided:
        """What was found; everything kept is forgotten."""
        drafts = [sample.draft for sample in self._samples]
        room.note(drafts)
        found = self._search.found
        samples = tuple(_written(sample, writer) for sample in self._samples)
        writer.close(drafts)
        for prompt in self._samples[0].prompts.values():
            judge.rewards.close(prompt)
        return Decided(drafts[0].wanted.problem_id, samples, None if found is None else found.best)


class _Room:
    """How many problems fit the memory, by the length of samples so far."""

    def __init__(self, writer: Writer, judge: Judge):
        self._writer, self._judge = writer, judge
        self._n_samples = self._n_tokens = 0

    def holds(self, wanted: Wanted, n_open: int) -> bool:
        """A first problem always fits; samples are as long as those before, and the first as long as they may be."""
        mean = self._n_tokens / self._n_samples if self._n_samples else self._writer.room(wanted)
        size = len(wanted.ids) + mean * len(wanted.sample_idxs)
        capacity = min(self._writer.capacity, self._judge.rewards.capacity) / 2  # of the models that are read, and it
        return n_open == 0 or (n_open + 1) * size <= capacity

    def note(self, drafts: Sequence[Draft]) -> None:
        """How long the samples of a decided problem are."""
        self._n_samples += len(drafts)
        self._n_tokens += sum(len(draft.ids) for draft in drafts)


class _Enough:
    """Whether a sample has a settled step that is not scored yet."""

    def __init__(self, samples: Sequence[_Sample], writer: Writer, name: str):
        self._writer, self._name = writer, name
        self._n_scored = {id(sample.draft): len(sample.scores) for sample in samples}

    def __call__(self, draft: Draft) -> bool:
        return len(settled_steps(self._writer.settled_text(draft), self._name)) > self._n_scored[id(draft)]


def _score(samples: Sequence[_Sample], writer: Writer, judge: Judge) -> None:
    """Score the steps of samples that are new."""
    texts = [writer.text(one.draft) if one.draft.stop_reason else writer.settled_text(one.draft) for one in samples]
    encoded = encode(judge.tokenizer, [one.rollout(text) for one, text in zip(samples, texts, strict=True)])
    pending: list[tuple[_Sample, Stepped]] = []
    for sample, text, item in zip(samples, texts, encoded, strict=True):
        finished = sample.draft.stop_reason is not None
        steps = _steps(text, item, judge.splitter, finished=finished) if text else ()
        if not steps or (len(item.ids) if finished else item.n_prompt + steps[-1].stop) > judge.max_length:
            sample.is_out = True
            continue
        stepped = Stepped(encoded=item, steps=steps)
        _check_same(sample, stepped)
        sample.stepped = stepped
        pending.append((sample, stepped))
    while pending := [(one, stepped) for one, stepped in pending if len(one.scores) < len(stepped.steps)]:
        wanted = [(_prompt(one, stepped.encoded), stepped, len(one.scores)) for one, stepped in pending]
        known = [one.known(stepped, len(one.scores)) for one, stepped in pending] if judge.reference_draws else []
        for (one, _), score in zip(pending, judge.rewards.rewards(wanted, known=known), strict=True):
            one.scores.append(score)


def _steps(text: str, item: Encoded, name: str, *, finished: bool) -> tuple[Span, ...]:
    """Token ranges of all steps of a finished response, of the settled ones of another."""
    if finished:
        return tuple(token_spans(item.spans, splitter(name)(text), text=text))
    settled = settled_steps(text, name)
    ranges = token_spans(item.spans, [*settled, Span(settled[-1].stop, len(text))], text=text)
    return tuple(ranges[: len(settled)])


def _check_same(sample: _Sample, stepped: Stepped) -> None:
    """Refuse to go on where the steps that were scored are others now."""
    before, now = sample.stepped, stepped.encoded
    if before is None:
        return
    stop = before.encoded.n_prompt + before.steps[-1].stop
    same_tokens = before.encoded.n_prompt == now.n_prompt and np.array_equal(before.encoded.ids[:stop], now.ids[:stop])
    if not same_tokens or before.steps != stepped.steps[: len(before.steps)]:
        raise ModelError(
            f"{sample.name}: the reward model's tokenizer reads steps that were finished as other tokens now that more "
            "text is there, so scores cannot be known before a response ends. Sample without --early-stop"
        )


def _prompt(sample: _Sample, item: Encoded) -> ReadPrompt:
    head = item.ids[: item.n_prompt].tobytes()
    return sample.prompts.setdefault(head, ReadPrompt(item))


def _written(sample: _Sample, writer: Writer) -> Written:
    draft = sample.draft
    sampled = Sampled(
        problem_id=draft.wanted.problem_id, sample_idx=draft.sample_idx, text=writer.text(draft),
        stop_reason=draft.stop_reason or "abandoned", token_ids=tuple(draft.ids),
        n_prompt_tokens=len(draft.wanted.ids), n_generated_tokens=len(draft.ids), token_logprobs=tuple(draft.logprobs),
    )  # fmt: skip
    return Written(sampled, None if sample.is_out else tuple(sample.scores))
