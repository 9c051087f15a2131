"""Best-of-N by a reward model while the samples are being drawn: a sample that has fallen behind is not finished.

Each sample is continued on demand from its own keys and values. Its random numbers are those of its index, so it
becomes, token for token, what `decoding` draws at once, up to the rounding of another batch.

The search is that of `models.best_of_n_search`. A step is scored once its end is settled (see `core.steps`), as part of
the text so far; it has the same tokens in the finished response, so the choice is that of complete sampling and
scoring.
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

from freeprm.core.early_stopping import ScoredStep
from freeprm.core.steps import check_settling, settled_steps, splitter, token_spans
from freeprm.engines.base import Sampled, SamplingParams, StopReason
from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.drawing import draw, end_tokens, is_stopped, response_text, stop_position, uniforms
from freeprm.errors import ModelError
from freeprm.models.best_of_n_search import search
from freeprm.models.encoding import Encoded, encode
from freeprm.models.incremental import ReadPrompt, Stepped, StepwiseRewards, WantedStep, shared_prompt
from freeprm.models.kv_cache import Slots, SlotTable, plain_layers
from freeprm.models.lengths import alike
from freeprm.models.loading import Backbone
from freeprm.types import Rollout, Span

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


class Writer:
    """Continues samples with one causal language model.

    Args:
        backbone: the model; all of its layers must keep keys and values.
        params: how tokens are drawn; log-probabilities are always noted.

    Raises:
        ModelError: the model keeps other state.
    """

    def __init__(self, backbone: Backbone, *, params: SamplingParams):
        self._backbone, self._params = backbone, params
        device = backbone.model.device
        self._slots = SlotTable(
            backbone.model, name=backbone.source,
            refusal="its samples cannot be written piece by piece. Draw them whole: leave out --early-stop",
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


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The reward model that scores samples."""

    rewards: StepwiseRewards
    tokenizer: PreTrainedTokenizerBase
    """Of the reward model."""
    max_length: int
    """Tokens of its context; a longer response is never chosen."""
    splitter: str
    """A name in `core.steps.SETTLING`."""
    reference_draws: bool = False
    """The engine's model is the reference, so its log-probabilities are known."""

    def __post_init__(self) -> None:
        check_settling(self.splitter)


class ScoredSample(NamedTuple):
    """A sample, possibly unfinished."""

    sampled: Sampled
    step_scores: tuple[float, ...] | None
    """Of the steps scored, all if it is finished; None if it cannot be scored: empty, or too long."""


class BestOfSamples(NamedTuple):
    """A problem's samples and the best of them."""

    problem_id: str
    samples: tuple[ScoredSample, ...]
    best: int | None
    """Index of a sample; None if none can be scored."""


def best_of_samples(
    problems: Iterable[Wanted], *, writer: Writer, judge: Judge, batch: int = 1
) -> Iterator[BestOfSamples]:
    """The best sample of each problem by the lowest step reward, once decided; see `best_of_n_search.search`.

    Raises:
        ConfigError: a batch below 1.
        ModelError: the reward model's tokenizer splits the beginning of a text otherwise once it is longer.
    """
    for problem, candidates, found in search(problems, source=_Drawn(writer, judge), batch=batch):
        samples = tuple(ScoredSample(writer.sampled(one.draft), one.step_scores) for one in candidates)
        best = found.get(len(samples))
        yield BestOfSamples(problem.problem_id, samples, None if best is None else best.best)


class _Candidate:
    """A sample with its scored steps; `prompts` and `noted` are shared by all samples of a problem."""

    def __init__(self, draft: Draft, prompts: dict[bytes, ReadPrompt], noted: dict[bytes, Tensor]):
        self.draft, self.prompts, self._noted = draft, prompts, noted
        self.scores: list[float] = []
        self.stepped: Stepped | None = None  # the steps that were scored, and the tokens up to their end
        self.is_out = False

    @property
    def step_scores(self) -> tuple[float, ...] | None:
        """See `ScoredSample`."""
        return None if self.is_out else tuple(self.scores)

    def rollout(self, text: str) -> Rollout:
        """The input of the reward model."""
        return Rollout(
            problem_id=self.draft.wanted.problem_id, sample_idx=self.draft.sample_idx, prompt=self.draft.wanted.prompt,
            response=text, truncated=self.draft.stop_reason not in ("end", "stop"),
        )  # fmt: skip

    def grow(self, stepped: Stepped) -> None:
        """Note the settled steps; a ModelError if steps that were scored have changed."""
        before, now = self.stepped, stepped.encoded
        if before is not None:
            stop = before.encoded.n_prompt + before.steps[-1].stop
            same_tokens = before.encoded.n_prompt == now.n_prompt and np.array_equal(
                before.encoded.ids[:stop], now.ids[:stop]
            )
            if not same_tokens or before.steps != stepped.steps[: len(before.steps)]:
                raise ModelError(
                    f"{now.name}: the reward model's tokenizer reads steps that were finished as other tokens now that "
                    "more text is there, so scores cannot be known before a response ends. Sample without --early-stop"
                )
        self.stepped = stepped

    def next_step(self, *, reference_draws: bool) -> WantedStep | None:
        """The first settled step without a score, or None."""
        stepped, step = self.stepped, len(self.scores)
        if self.is_out or stepped is None or step == len(stepped.steps):
            return None
        prompt = shared_prompt(self.prompts, stepped.encoded)
        return WantedStep(prompt, stepped, step, self._drawn_logps(stepped, step) if reference_draws else None)

    def _drawn_logps(self, stepped: Stepped, step: int) -> Tensor | None:
        """The log-probabilities of a step's tokens noted while drawing; None if the reward model has other tokens.

        Equal beginnings take those of the first sample, so that equal steps have equal rewards to the last bit.
        """
        start, stop = stepped.steps[step]
        n_prompt, ids = len(self.draft.wanted.ids), [*self.draft.wanted.ids, *self.draft.ids]
        encoded = stepped.encoded
        if encoded.n_prompt != n_prompt or encoded.ids[: n_prompt + stop].tolist() != ids[: n_prompt + stop]:
            return None
        return self._noted.setdefault(stepped.prefix(step), torch.tensor(self.draft.logprobs[start:stop]))


class _Drawn:
    """A `CandidateSource` that continues samples when their steps are requested."""

    def __init__(self, writer: Writer, judge: Judge):
        self._writer, self._judge = writer, judge
        self._n_samples = self._n_tokens = 0  # of decided problems

    def has_room(self, problem: Wanted, others: Sequence[Wanted]) -> bool:
        """See `CandidateSource`; expects the mean length of earlier samples, at first the maximum."""
        mean = self._n_tokens / self._n_samples if self._n_samples else self._writer.room(problem)
        size = len(problem.ids) + mean * len(problem.sample_idxs)
        capacity = min(self._writer.capacity, self._judge.rewards.capacity) / 2  # of the models that are read, and it
        return (len(others) + 1) * size <= capacity

    def open(self, problem: Wanted) -> tuple[list[_Candidate], dict[int, int]]:
        """See `CandidateSource`."""
        prompts: dict[bytes, ReadPrompt] = {}
        noted: dict[bytes, Tensor] = {}
        candidates = [_Candidate(draft, prompts, noted) for draft in self._writer.open(problem)]
        return candidates, {len(candidates): len(candidates)}

    def advance(self, candidates: Sequence[_Candidate]) -> list[ScoredStep | None]:
        """See `CandidateSource`; steps that end with the same token count as one."""
        n_scored = {id(one.draft): len(one.scores) for one in candidates}

        def is_enough(draft: Draft) -> bool:
            settled = settled_steps(self._writer.settled_text(draft), self._judge.splitter)
            return len(settled) > n_scored[id(draft)]

        self._writer.write([one.draft for one in candidates], is_enough)
        self._score(candidates)
        return [
            None
            if one.is_out
            else ScoredStep(min(one.scores[n_scored[id(one.draft)] :]), one.draft.stop_reason is not None)
            for one in candidates
        ]

    def close(self, candidates: Sequence[_Candidate]) -> None:
        """See `CandidateSource`."""
        drafts = [one.draft for one in candidates]
        self._n_samples += len(drafts)
        self._n_tokens += sum(len(draft.ids) for draft in drafts)
        self._writer.close(drafts)
        for prompt in candidates[0].prompts.values():
            self._judge.rewards.close(prompt)

    def _score(self, candidates: Sequence[_Candidate]) -> None:
        """Score new steps."""
        writer, judge = self._writer, self._judge
        texts = [
            writer.text(one.draft) if one.draft.stop_reason else writer.settled_text(one.draft) for one in candidates
        ]
        encoded = encode(judge.tokenizer, [one.rollout(text) for one, text in zip(candidates, texts, strict=True)])
        for one, text, item in zip(candidates, texts, encoded, strict=True):
            finished = one.draft.stop_reason is not None
            steps = _steps(text, item, judge.splitter, finished=finished) if text else ()
            one.is_out = not steps or (len(item.ids) if finished else item.n_prompt + steps[-1].stop) > judge.max_length
            if not one.is_out:
                one.grow(Stepped(encoded=item, steps=steps))
        while pending := [
            (one, step)
            for one in candidates
            if (step := one.next_step(reference_draws=judge.reference_draws)) is not None
        ]:
            for (one, _), score in zip(pending, judge.rewards.rewards([step for _, step in pending]), strict=True):
                one.scores.append(score)


def _steps(text: str, item: Encoded, name: str, *, finished: bool) -> tuple[Span, ...]:
    """Token ranges of all steps of a finished response, or of the settled ones."""
    if finished:
        return tuple(token_spans(item.spans, splitter(name)(text), text=text))
    settled = settled_steps(text, name)
    ranges = token_spans(item.spans, [*settled, Span(settled[-1].stop, len(text))], text=text)
    return tuple(ranges[: len(settled)])
