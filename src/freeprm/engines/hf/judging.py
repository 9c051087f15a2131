"""Scoring of samples while they are drawn: each step once its end is settled, as part of the text so far.

A settled step (see `core.steps`) has the same tokens in the finished response, so its reward is that of complete
sampling and scoring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from freeprm.core.steps import check_settling, settled_steps, splitter, token_spans
from freeprm.engines.base import Sampled
from freeprm.engines.hf.writing import Draft, Writer
from freeprm.errors import ModelError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.incremental import ReadPrompt, Stepped, StepwiseRewards, WantedStep, shared_prompt
from freeprm.types import Rollout, Span


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
    drops_changed: bool = False
    """A sample whose finished steps the reward model reads as other tokens once more text is there is out; else that
    ends the run, as the choice would not be that of whole responses."""

    def __post_init__(self) -> None:
        check_settling(self.splitter)


class ScoredSample(NamedTuple):
    """A sample, possibly unfinished."""

    sampled: Sampled
    step_scores: tuple[float, ...] | None
    """Of the steps scored, all if it is finished; None if it cannot be scored: empty, or too long."""


class Candidate:
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

    def grow(self, stepped: Stepped, *, drops_changed: bool = False) -> None:
        """Note the settled steps; if steps that were scored have changed, it is out, or that is a ModelError."""
        before, now = self.stepped, stepped.encoded
        if before is not None:
            stop = before.encoded.n_prompt + before.steps[-1].stop
            same_tokens = before.encoded.n_prompt == now.n_prompt and np.array_equal(
                before.encoded.ids[:stop], now.ids[:stop]
            )
            if not same_tokens or before.steps != stepped.steps[: len(before.steps)]:
                if drops_changed:
                    self.is_out = True
                    return
                raise ModelError(
                    f"{now.name}: the reward model's tokenizer reads steps that were finished as other tokens now that "
                    "more text is there, so scores cannot be known before a response ends. Draw and score whole ones: "
                    "freeprm sample, freeprm score"
                )
        self.stepped = stepped

    def fork(self, draft: Draft, *, n_steps: int) -> Self:
        """Another sample that goes on from the end of this one's first steps, with their scores."""
        other = type(self)(draft, self.prompts, self._noted)
        assert self.stepped is not None
        other.scores = self.scores[:n_steps]
        other.stepped = Stepped(encoded=self.stepped.encoded, steps=self.stepped.steps[:n_steps])
        return other

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


def advance(candidates: Sequence[Candidate], *, writer: Writer, judge: Judge) -> None:
    """Continue each sample by a step, or to its end, and score what is new."""
    n_scored = {id(one.draft): len(one.scores) for one in candidates}

    def is_enough(draft: Draft) -> bool:
        settled = settled_steps(writer.settled_text(draft), judge.splitter)
        return len(settled) > n_scored[id(draft)]

    writer.write([one.draft for one in candidates], is_enough)
    score(candidates, writer=writer, judge=judge)


def score(candidates: Sequence[Candidate], *, writer: Writer, judge: Judge) -> None:
    """Score the settled steps that have no score yet; those that end with the same token count as one."""
    texts = [writer.text(one.draft) if one.draft.stop_reason else writer.settled_text(one.draft) for one in candidates]
    encoded = encode(judge.tokenizer, [one.rollout(text) for one, text in zip(candidates, texts, strict=True)])
    for one, text, item in zip(candidates, texts, encoded, strict=True):
        finished = one.draft.stop_reason is not None
        steps = _steps(text, item, judge.splitter, finished=finished) if text else ()
        one.is_out = not steps or (len(item.ids) if finished else item.n_prompt + steps[-1].stop) > judge.max_length
        if not one.is_out:
            one.grow(Stepped(encoded=item, steps=steps), drops_changed=judge.drops_changed)
    while pending := [
        (one, step) for one in candidates if (step := one.next_step(reference_draws=judge.reference_draws)) is not None
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
