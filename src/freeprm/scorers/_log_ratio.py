"""A log-ratio of two language models as a scorer, r = beta * log(pi_phi / pi_ref), wherever the models are.

`LogRatio` takes both models' token log-probabilities from two `Reader`s and makes scores of them. `implicit` loads the
models here, `_servers` asks inference servers.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.core.flops import ModelShape
from freeprm.core.ledger import POLICY, REFERENCE
from freeprm.core.rewards import REWARDS, Floats, check_reward, q_values, step_rewards
from freeprm.core.steps import Reasoning
from freeprm.errors import ConfigError, DataError, ModelError, SpanError
from freeprm.models.batching import Advance
from freeprm.models.encoding import Encoded, TooLong
from freeprm.models.reference_logprobs import COLUMNS, check_stored, model_key, stored_logprobs
from freeprm.models.reward_config import RewardConfig, reference_of
from freeprm.models.routes import prepare
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import (
    DEFAULT_SCORING,
    Description,
    Scorer,
    Scores,
    ScoringOptions,
    fit_rollouts,
    rollouts_of,
    steps_of,
)
from freeprm.types import Prompt, ResponseScore, Rollout

Score = Callable[[Sequence[Encoded]], list[Tensor]]
"""Of each response, the (T,) log-probabilities of its tokens."""
First = TypeVar("First")
Second = TypeVar("Second")


class Reader(Protocol):
    """A language model that gives log-probabilities of tokens."""

    @property
    def source(self) -> str:
        """As the user named it."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's."""
        ...

    @property
    def config(self) -> PreTrainedConfig:
        """The model's."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt with its response; the policy's decides."""
        ...

    @property
    def dtype(self) -> str:
        """What it computes in; "auto" if that is unknown."""
        ...

    @property
    def place(self) -> str:
        """Its device or server; two models at two places work at the same time."""
        ...

    @property
    def model(self) -> nn.Module | None:
        """What is loaded here; None of a server's."""
        ...

    def reading(self, what: str, passed: Advance, *, usage: Usage, token_budget: int | None) -> Score:
        """A pass, timed from now on.

        Args:
            what: the charge in `usage`.
            passed: called after each batch.
            usage: counts tokens and time.
            token_budget: tokens in one batch; see `score_tokens`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogProbs:
    """Both models' log-probabilities of one response's tokens."""

    encoded: Encoded
    policy: Floats
    """(T,)"""
    ref: Floats | None
    """(T,); None without a loaded reference."""


class LogRatio(Scorer):
    """Scores responses with r = beta * log(pi_phi / pi_ref), at any granularity.

    Args:
        config: beta, the reference and the splitter; see reward.json.
        policy: the trained model.
        reference: the frozen model that it started from; None to score without it; the policy itself of an untrained
            model.
        about: a description without rewards means q at each step's end, as for released log-ratios.
        stored_reference: use the reference's log-probabilities that rollouts have from sampling.
    """

    consumes = COLUMNS

    def __init__(
        self, config: RewardConfig, about: Description, *, policy: Reader, reference: Reader | None,
        stored_reference: bool,
    ):  # fmt: skip
        self.config, self.about = config, about
        self._policy, self._reference = policy, reference
        self._takes_stored = stored_reference

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `freeprm.scorers.base.Scorer`."""
        return self._policy.tokenizer

    def shape(self) -> ModelShape:
        """See `freeprm.scorers.base.Scorer`."""
        return ModelShape.of(self._policy.config.get_text_config())

    def score(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        *,
        splitter: str | None = None,
        steps: Sequence[Sequence[str]] | None = None,
        reward: str = "with-reference",
        too_long: TooLong = "error",
        finished: bool = True,
    ) -> list[ResponseScore]:
        """Score responses to one prompt.

        Args:
            prompt: text or conversation.
            responses: B texts.
            splitter: a name in `freeprm.core.steps.SPLITTERS`, or "tokens"; the model's own by default.
            steps: the steps of each response, instead of a splitter.
            reward: a name in `freeprm.core.rewards.REWARDS`.
            too_long: what to do with a response longer than the context; "exclude" is refused, since the missing score
                would not be noticed.
            finished: False for beginnings of responses, which get no end-of-turn token.

        Returns:
            B scores, in order.

        Raises:
            DataError: an empty or too long response, or one list of steps too many or too few.
        """
        if too_long == "exclude":
            raise ConfigError("too_long='exclude': `score` returns one score a response; choose 'error' or 'truncate'")
        if steps is not None and len(steps) != len(responses):
            raise DataError(f"{len(steps)} lists of steps for {len(responses)} responses")
        logps, counts = self.logprobs(rollouts_of(prompt, responses, truncated=not finished), too_long=too_long)
        for index, response in enumerate(responses):
            if index not in logps:
                why = "its prompt alone fills the context"
                if not response:
                    why = "it is empty, so there are no tokens to score"
                elif self.config.reasoning == "exclude" and counts:
                    why = "there is no answer behind its reasoning, or its prompt alone fills the context"
                raise DataError(f"response {index}: {why}; leave it out")
        return [
            self.read(item, response, splitter=splitter, steps=None if steps is None else steps[index], reward=reward)
            for index, (item, response) in enumerate(zip(logps.values(), responses, strict=True))
        ]

    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        """See `freeprm.scorers.base.Scorer`."""
        self.about.check(options)
        first, *others = options.rewards or self.about.rewards or ("",)
        models = [one.model for one in (self._policy, self._reference) if one and one.model is not None]
        packed = options.max_memory is not None and all(prepare(model) for model in models)
        logps, counts = self.logprobs(
            rollouts, too_long=options.too_long, reasoning=options.reasoning, usage=usage,
            token_budget=options.batch_tokens(models, packed=packed, reads_logits=True),
        )  # fmt: skip
        found = {}
        for index, item in logps.items():
            by_reward = {name: self._scores(item, rollouts[index], name, options) for name in (first, *others)}
            found[index] = replace(by_reward.pop(first), others=by_reward) if others else by_reward[first]
        return found, counts

    def _scores(self, item: TokenLogProbs, rollout: Rollout, reward: str, options: ScoringOptions) -> Scores:
        """The scores under a reward; "" means q at each step's end."""
        try:
            read = self.read(
                item, rollout.response, splitter=options.splitter, steps=rollout.extra.get("steps"),
                reward=reward or "with-reference", reasoning=options.reasoning,
            )  # fmt: skip
        except SpanError as error:
            raise SpanError(f"{item.encoded.name}: {error}") from error
        n_tokens = len(item.encoded.ids)
        if not reward:
            return Scores(steps=read.steps, step_scores=read.q_values, n_tokens=n_tokens)
        columns = {}
        if options.tokens:
            columns = {"token_rewards": list(read.token_rewards), "token_spans": [list(span) for span in read.tokens]}
        return Scores(
            steps=read.steps, step_scores=read.step_rewards, reward=read.reward, n_tokens=n_tokens, columns=columns
        )

    def logprobs(
        self,
        rollouts: Sequence[Rollout],
        *,
        too_long: TooLong = "exclude",
        token_budget: int | None = None,
        reasoning: Reasoning | None = None,
        usage: Usage | None = None,
    ) -> tuple[dict[int, TokenLogProbs], Counter[str]]:
        """Both models' token log-probabilities, from which any reward at any granularity is computed.

        Args:
            rollouts: any number, best grouped by prompt; empty responses are left out.
            too_long: what to do with a response longer than the context.
            token_budget: tokens in one batch; see `score_tokens`.
            reasoning: see `ScoringOptions`; with `exclude`, log-probabilities of the answer's tokens.
            usage: counts the tokens of each model.

        Returns:
            By index into `rollouts`, without those left out; and counts of responses left out or cut, by reason, and
            of the sources of the reference's log-probabilities.
        """
        readers = [one for one in (self._policy, self._reference) if one]
        fitted = fit_rollouts(
            rollouts, self._policy.tokenizer, {one.source: one.config for one in readers},
            max_length=self._policy.max_length, too_long=too_long, reasoning=reasoning or self.config.reasoning,
        )  # fmt: skip
        counts, usage = fitted.counts, usage or Usage()
        reference = self._reference
        ref: Sequence[Tensor | None]
        if reference is None or reference is self._policy:
            policy = self._policy.reading(POLICY, usage.advance, usage=usage, token_budget=token_budget)(fitted.encoded)
            ref = policy if reference else [None] * len(policy)
        else:
            kept = [rollouts[index] for index in fitted.kept]
            ours = partial(self._policy.reading, POLICY, usage=usage, token_budget=token_budget)
            theirs = partial(reference.reading, REFERENCE, usage=usage, token_budget=token_budget)
            policy, ref = both(
                lambda passed: ours(passed)(fitted.encoded),
                lambda passed: self._of_reference(kept, fitted.encoded, theirs(passed), counts),
                advance=usage.advance, at_once=are_apart(self._policy, reference),
            )  # fmt: skip
        parts = zip(fitted.kept, fitted.encoded, policy, ref, strict=True)
        return {
            index: TokenLogProbs(encoded=item, policy=_array(p), ref=None if r is None else _array(r))
            for index, item, p, r in parts
        }, counts

    def _of_reference(
        self, rollouts: Sequence[Rollout], encoded: Sequence[Encoded], score: Score, counts: Counter[str]
    ) -> list[Tensor]:
        """The reference's log-probabilities, from sampling or computed."""
        stored = self._stored(rollouts, encoded, score, counts)
        rest = [index for index in range(len(encoded)) if index not in stored]
        computed = score([encoded[index] for index in rest])
        known = {**stored, **dict(zip(rest, computed, strict=True))}
        return [known[index] for index in range(len(encoded))]

    def _stored(
        self, rollouts: Sequence[Rollout], encoded: Sequence[Encoded], score: Score, counts: Counter[str]
    ) -> dict[int, Tensor]:
        """By index, the reference's log-probabilities that rollouts have from sampling, some of them checked."""
        if not self._takes_stored:
            return {}
        dtype = self._policy.dtype
        key = model_key(
            weights_sha256=reference_of(self.config, source=self._policy.source).weights_sha256,
            template_sha256=self.config.template_sha256,
            dtype=dtype,
        )
        config = (self._reference or self._policy).config
        stored = stored_logprobs(rollouts, encoded, key=key, config=config, counts=counts)
        if stored:
            check_stored(stored, encoded, dtype=dtype, compute=score)
        return stored

    def read(
        self,
        logps: TokenLogProbs,
        response: str,
        *,
        splitter: str | None = None,
        steps: Sequence[str] | None = None,
        reward: str = "with-reference",
        reasoning: Reasoning | None = None,
    ) -> ResponseScore:
        """Rewards at every granularity from token log-probabilities, without running a model.

        Raises:
            ModelError: this reward needs the reference, which is not loaded.
        """
        check_reward(reward)
        if logps.ref is None and reward != "without-reference":
            raise ModelError(f"reward {reward!r} needs the reference, which was not loaded; choose 'without-reference'")
        ref = logps.policy if logps.ref is None else logps.ref
        rewards = REWARDS[reward](logps.policy, ref, self.config.beta)
        covered = logps.encoded.spans
        spans, tokens = steps_of(
            covered, response, splitter or self.config.splitter, given=steps,
            reasoning=reasoning or self.config.reasoning,
        )  # fmt: skip
        per_step = step_rewards(rewards, tokens)
        return ResponseScore(
            steps=tuple(spans),
            step_rewards=tuple(per_step.tolist()),
            q_values=tuple(q_values(per_step).tolist()),
            reward=float(rewards.sum()),
            tokens=covered,
            token_rewards=tuple(rewards.tolist()),
        )


def described(
    source: str, *, beta: float, dtype: str, splitter: str, policy: Path, reference: Path | None,
    is_own_reference: bool = False, reasoning: Reasoning | None = "include",
) -> Description:  # fmt: skip
    """The description of a log-ratio; its default reward follows from its models."""
    plain = "without-reference" if reference is None else "with-reference"
    return Description(
        name="implicit", source=source, splitter=splitter, aggregation="min", kind="log_odds",
        rewards=("reference-only" if is_own_reference else plain,), reasoning=reasoning,
        settings={"beta": beta, "dtype": dtype, **({} if reasoning == "include" else {"reasoning": reasoning})},
        weights={"policy": policy, "reference": reference},
    )  # fmt: skip


def are_apart(one: Reader, other: Reader) -> bool:
    """Whether two models are at different places."""
    return one.place != other.place


class _EndedError(Exception):
    """Ends a pass because the other one has failed."""


def both(
    first: Callable[[Advance], First], second: Callable[[Advance], Second], *, advance: Advance, at_once: bool
) -> tuple[First, Second]:
    """The results of two passes; each is called with a callback for its batches.

    Args:
        first: runs in this thread.
        second: runs after it, or in its own thread.
        advance: called for every batch, by one pass at a time.
        at_once: run both at the same time. If one fails or is interrupted, the other ends after its batch.
    """
    if not at_once:
        return first(advance), second(advance)
    ended, alone = Event(), Lock()

    def passed(n_tokens: int, n_responses: int) -> None:
        if ended.is_set():
            raise _EndedError
        with alone:
            advance(n_tokens, n_responses)

    def end_if_failed(done: Future[Second]) -> None:
        if done.exception() is not None:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(second, passed)
        other.add_done_callback(end_if_failed)
        try:
            mine = first(passed)
        except _EndedError:
            other.result()  # raises what ended this pass
            raise
        except BaseException:
            ended.set()
            raise
        return mine, other.result()


def _array(logps: Tensor) -> Floats:
    return logps.numpy().astype(np.float64)
