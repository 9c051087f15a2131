"""Rewards of responses step by step, the next step of several at a time: both models read no further than asked.

The same numbers as from whole responses (see `core.rewards`), up to the rounding of another batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from freeprm.core.ledger import POLICY, REFERENCE
from freeprm.core.rewards import REWARDS, check_reward
from freeprm.errors import ModelError, NonFiniteError
from freeprm.models.backbone import Backbone
from freeprm.models.encoding import Encoded
from freeprm.models.incremental import IncrementalReader, Piece, Prompt, is_begun
from freeprm.types import Span


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stepped:
    """A response cut into steps."""

    encoded: Encoded
    steps: tuple[Span, ...]
    """K ranges of the response's tokens, tiling 0..T."""

    def prefix(self, step: int) -> bytes:
        """What decides a step's reward: prompt and response up to its end, and where it begins."""
        stop = self.encoded.n_prompt + self.steps[step].stop
        return self.steps[step].start.to_bytes(4) + self.encoded.ids[:stop].tobytes()


class ReadPrompt:
    """A prompt that both models read, for the responses to it."""

    def __init__(self, encoded: Encoded):
        ids = encoded.ids[: encoded.n_prompt]
        self.policy, self.reference = Prompt(ids), Prompt(ids)


class StepwiseRewards:
    """Step rewards by one way of reading the two models.

    Args:
        policy: the trained model.
        reference: the one that it started from, None where it is not needed.
        reward: a name in `core.rewards.REWARDS`; only the models that it takes are run.
        beta: the scale.

    Raises:
        ConfigError: no such reward.
        ModelError: it takes the reference, which is not there, or a model cannot be read step by step.
    """

    def __init__(self, *, policy: Backbone, reference: Backbone | None, reward: str, beta: float):
        check_reward(reward)
        if reference is None and reward != "without-reference":
            raise ModelError(f"reward {reward!r} needs the reference, which was not loaded; choose 'without-reference'")
        self._combine, self._beta = REWARDS[reward], beta
        self._policy = None if reward == "reference-only" else _reader(policy)
        self._is_shared = reference is policy and self._policy is not None
        needs_reference = reference is not None and reward != "without-reference" and not self._is_shared
        self._reference = _reader(reference) if needs_reference and reference is not None else None

    @property
    def n_tokens(self) -> int:
        """Tokens that went through either model so far, prompts included."""
        return sum(reader.n_tokens for reader in self._readers)

    @property
    def read(self) -> dict[str, int]:
        """Of these, the tokens of each model, by charge; an untrained policy is its own reference."""
        readers = {POLICY: self._policy, REFERENCE: self._reference}
        return {what: reader.n_tokens for what, reader in readers.items() if reader is not None}

    @property
    def capacity(self) -> int:
        """Tokens, of prompts and responses that are open at a time, that there is memory for."""
        return min(reader.capacity for reader in self._readers) // len(self._readers)

    def rewards(
        self, wanted: Sequence[tuple[ReadPrompt, Stepped, int]], *, known: Sequence[Tensor | None] = ()
    ) -> list[float]:
        """Reward of one step of each response, whose steps before were asked for before.

        Args:
            wanted: a response with its prompt, and the step.
            known: for each, the reference's log-probabilities of the step's tokens; None where they are to be read.

        Raises:
            NonFiniteError: a log-probability is NaN or infinite; names the response.
        """
        policy = _logprobs(self._policy, [_piece(prompt.policy, item, step) for prompt, item, step in wanted])
        ref = self._reference_logprobs(wanted, known or [None] * len(wanted))
        policy, ref = policy or ref, ref or policy
        rewards = []
        for (_, item, step), p, r in zip(wanted, policy, ref, strict=True):
            tokens = self._combine(p.numpy().astype(np.float64), r.numpy().astype(np.float64), self._beta)
            if not np.isfinite(tokens).all():
                raise NonFiniteError(
                    f"{item.encoded.name}: the reward of step {step} is not finite; a model's weights or its dtype are "
                    "at fault (float16 overflows where bfloat16 does not), or training diverged"
                )
            rewards.append(float(tokens.sum()))
        return rewards

    def close(self, prompt: ReadPrompt) -> None:
        """Forget a prompt and its responses."""
        if self._policy:
            self._policy.close(prompt.policy)
        if self._reference:
            self._reference.close(prompt.reference)

    def _reference_logprobs(
        self, wanted: Sequence[tuple[ReadPrompt, Stepped, int]], known: Sequence[Tensor | None]
    ) -> list[Tensor]:
        if self._reference is None:
            return []
        unknown = [one for one, logprobs in zip(wanted, known, strict=True) if logprobs is None]
        pieces = [_piece(prompt.reference, item, step) for prompt, item, step in unknown]
        # Where steps before were known, nothing of them has been read.
        unread = [piece for piece in pieces if piece.start > len(piece.prompt.ids) and not is_begun(piece)]
        self._reference.read([piece._replace(start=len(piece.prompt.ids), stop=piece.start) for piece in unread])
        read = iter(self._reference.read(pieces))
        return [next(read) if logprobs is None else logprobs for logprobs in known]

    @property
    def _readers(self) -> list[IncrementalReader]:
        return [reader for reader in (self._policy, self._reference) if reader is not None]


def _reader(backbone: Backbone) -> IncrementalReader:
    return IncrementalReader(backbone.model, name=backbone.source)


def _logprobs(reader: IncrementalReader | None, pieces: Sequence[Piece]) -> list[Tensor]:
    return [] if reader is None else reader.read(pieces)


def _piece(prompt: Prompt, item: Stepped, step: int) -> Piece:
    start, stop = item.steps[step]
    return Piece(prompt, item.encoded.ids, item.encoded.n_prompt + start, item.encoded.n_prompt + stop)
