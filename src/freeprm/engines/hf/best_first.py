"""Best-of-n by a reward model while the samples are being written: who has fallen behind is not written on.

The search is that of `core.early_stopping`, for several problems side by side. A sample's step is scored once its end
is settled (see `core.steps`), as part of the text that stands then; so it is the step, and has the tokens, that it
has in the finished response, and what is chosen is what complete sampling and scoring would choose.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from freeprm.core.early_stopping import BestFirst, Step
from freeprm.core.steps import check_settling, settled_steps, splitter, token_spans
from freeprm.engines.base import Sampled
from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.piecewise import Draft, Writer
from freeprm.errors import ConfigError, ModelError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.stepwise import ReadPrompt, Stepped, StepwiseRewards
from freeprm.types import Rollout, Span

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
