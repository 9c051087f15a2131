"""The implicit process reward model: two causal language models whose log-ratio is the reward."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from freeprm.core.flops import ModelShape
from freeprm.core.ledger import POLICY, REFERENCE
from freeprm.core.rewards import REWARDS, Floats, check_reward, q_values, step_rewards
from freeprm.errors import ConfigError, DataError, ModelError, SpanError
from freeprm.models.batching import Advance
from freeprm.models.casting import kept_of_update
from freeprm.models.encoding import Encoded, TooLong
from freeprm.models.loading import (
    Backbone,
    Dtype,
    LoadOptions,
    check_same_vocabulary,
    load_backbone,
    portable,
    resolve,
    template_hash,
    weights_hash,
)
from freeprm.models.logprobs import score_tokens
from freeprm.models.publishing import model_files, push_files, save_files
from freeprm.models.reference_logprobs import COLUMNS, LogProbCache, cache_key, check_stored, model_key, stored_logprobs
from freeprm.models.reward_config import (
    Override,
    Reference,
    RewardConfig,
    check_reference,
    check_template,
    load_reward_config,
    recorded_date,
    reference_of,
    with_beta,
)
from freeprm.scorers._usage import ModelUsage, Usage
from freeprm.scorers.base import (
    DEFAULT_SCORING,
    Description,
    Scorer,
    ScorerSource,
    Scores,
    ScoringOptions,
    fit_rollouts,
    rollouts_of,
    steps_of,
)
from freeprm.types import Prompt, ResponseScore, Rollout

_SAME_DIRECTION = 0.99
"""Cosine of two updates from which no warning is given; at 0.99, 14 % of the norm is orthogonal."""
_Score = Callable[[Sequence[Encoded]], list[Tensor]]
First = TypeVar("First")
Second = TypeVar("Second")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogProbs:
    """Both models' log-probabilities of one response's tokens."""

    encoded: Encoded
    policy: Floats
    """(T,)"""
    ref: Floats | None
    """(T,); None without a loaded reference."""


class ImplicitPRM(Scorer):
    """Scores responses with r = beta * log(pi_phi / pi_ref), at any granularity.

    Args:
        config: beta, the reference and the splitter; see reward.json.
        policy: the trained model.
        reference: the frozen model it started from; None to score without it.
        stored_reference: use the reference's log-probabilities that rollouts have from sampling.
        cache: see `ScorerSource`.
        about: by default from the config. A description without rewards means q at each step's end, as for released
            log-ratios.
    """

    consumes = COLUMNS

    def __init__(
        self,
        config: RewardConfig,
        *,
        policy: Backbone,
        reference: Backbone | None,
        stored_reference: bool = True,
        cache: Path | None = None,
        about: Description | None = None,
    ):
        self.config, self.policy, self.reference = config, policy, reference
        self.about = about or described(
            policy.source, beta=config.beta, dtype=policy.dtype, splitter=config.splitter, policy=policy.folder,
            reference=None if reference is None else reference.folder, is_own_reference=reference is policy,
        )  # fmt: skip
        self._takes_stored, self._cache = stored_reference, cache

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        reference: str | Path | None = None,
        load_reference: bool = True,
        beta: float | None = None,
        override: Sequence[Override] = (),
        stored_reference: bool = True,
        device: str | None = None,
        reference_device: str | None = None,
        dtype: Dtype = "auto",
        attention: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Load a folder that `freeprm train` wrote.

        Args:
            source: the folder, or a hub id.
            reference, load_reference, beta, override, reference_device: see `ScorerSource`.
            stored_reference: see `ImplicitPRM`.
            device: of both models, such as "cuda:1"; by default CUDA if available.
            dtype: of both models; "auto" is the policy's own.
            attention, trust_remote_code: see `LoadOptions`.

        Raises:
            ModelError: no reward.json, one of a model of values, or a model that cannot be loaded.
            RewardMismatchError: another beta, reference or chat template than reward.json records.
        """
        options = LoadOptions(device=device, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code)
        return cls.load(
            ScorerSource(
                source=str(source),
                reference=None if reference is None else str(reference),
                load_reference=load_reference,
                beta=beta,
                override=tuple(override),
                stored_reference=stored_reference,
                reference_device=reference_device,
                options=options,
            )
        )

    @classmethod
    def describe(cls, source: ScorerSource) -> Description:
        """See `freeprm.scorers.base.Member`."""
        config = load_reward_config(source.folder)
        recorded = reference_of(config, source=source.source)
        where, revision = (source.reference, None) if source.reference else (recorded.source, recorded.revision)
        return described(
            source.source, beta=config.beta if source.beta is None else source.beta, dtype=source.options.dtype,
            splitter=config.splitter, policy=source.folder,
            reference=resolve(where, revision=revision) if source.load_reference else None,
        )  # fmt: skip

    @classmethod
    def load(cls, source: ScorerSource) -> Self:
        """See `freeprm.scorers.base.Member`, and `from_pretrained`."""
        config = load_reward_config(source.folder)
        recorded = reference_of(config, source=source.source)
        policy = load_backbone(source.source, recorded_date(config, source.options, override=source.override))
        check_template(config, policy, override=source.override)
        config = with_beta(config, policy, beta=source.beta, override=source.override)
        if not source.load_reference:
            return cls(config, policy=policy, reference=None, cache=source.cache)
        # Both in the policy's precision: otherwise the log-ratio would contain two roundings.
        options = replace(source.options, dtype=policy.dtype, device=source.reference_device or source.options.device)
        if source.reference is None:
            ref = _recorded(recorded, source.source, options)
        else:
            ref = load_backbone(source.reference, options)
        check_reference(config, ref, policy=policy, override=source.override)
        check_same_vocabulary(policy.tokenizer, ref.tokenizer)
        _warn_of_a_cast(policy, ref)
        return cls(
            config, policy=policy, reference=ref, stored_reference=source.stored_reference, cache=source.cache
        )  # fmt: skip

    def save_pretrained(self, folder: str | Path, *, reference: str | None = None) -> None:
        """Write the policy's files with reward.json and model card into another folder, for `from_pretrained`.

        Args:
            folder: is made if need be.
            reference: where the reference is to be found from there; by default where it was.

        Raises:
            ConfigError: the folder is the model's own.
            ModelError: the policy is a GGUF file.
        """
        save_files(model_files(self.policy.folder, self.config, reference=reference), Path(folder).expanduser())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        reference: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload process reward model",
    ) -> str:
        """Put the policy's files with reward.json and model card on the hub, for `from_pretrained(repo_id)`.

        What training wrote beside the weights goes along, such as manifest.json, which names the files it read.

        Args:
            repo_id: OWNER/NAME; the repository is made if need be.
            reference: the reference's own hub id, if reward.json names a folder.
            private, token, revision, commit_message: see `huggingface_hub.HfApi`.

        Returns:
            The URL of the commit.

        Raises:
            ConfigError: the reference is a folder of this machine.
            ModelError: the hub refuses, or the policy is a GGUF file.
        """
        files = model_files(self.policy.folder, self.config, reference=reference)
        return push_files(
            files, repo_id, private=private, token=token, revision=revision, commit_message=commit_message
        )

    @classmethod
    def untrained(cls, model: Backbone, *, beta: float = 1.0, cache: Path | None = None) -> Self:
        """A model as its own reference: every log-ratio is exactly 0, and `reference-only` is its log-likelihood."""
        ref = Reference(source=portable(model.source), weights_sha256=weights_hash(model.folder))
        config = RewardConfig(
            beta=beta, base=model.source, reference=ref, objective="none", splitter="auto",
            template_sha256=template_hash(model.tokenizer),
        )  # fmt: skip
        return cls(config, policy=model, reference=model, cache=cache)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `freeprm.scorers.base.Scorer`."""
        return self.policy.tokenizer

    def shape(self) -> ModelShape:
        """See `freeprm.scorers.base.Scorer`."""
        return ModelShape.of(self.policy.model.config.get_text_config())

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
        logps, _ = self.logprobs(rollouts_of(prompt, responses, truncated=not finished), too_long=too_long)
        for index, response in enumerate(responses):
            if index not in logps:
                why = (
                    "its prompt alone fills the context" if response else "it is empty, so there are no tokens to score"
                )
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
        logps, counts = self.logprobs(
            rollouts, too_long=options.too_long, token_budget=options.token_budget, usage=usage
        )
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
                reward=reward or "with-reference",
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
        usage: Usage | None = None,
    ) -> tuple[dict[int, TokenLogProbs], Counter[str]]:
        """Both models' token log-probabilities, from which any reward at any granularity is computed.

        Args:
            rollouts: any number, best grouped by prompt; empty responses are left out.
            too_long: what to do with a response longer than the context.
            token_budget: tokens in one batch; see `score_tokens`.
            usage: counts the tokens of each model.

        Returns:
            By index into `rollouts`, without those left out; and counts of responses left out or cut, by reason, and
            of the sources of the reference's log-probabilities.
        """
        fitted = fit_rollouts(rollouts, [one for one in (self.policy, self.reference) if one], too_long=too_long)
        counts, usage = fitted.counts, usage or Usage()
        score = partial(self._pass, usage=usage, token_budget=token_budget)
        reference = self.reference
        ref: Sequence[Tensor | None]
        if reference is None or reference is self.policy:
            policy = score(POLICY, self.policy, usage.advance)(fitted.encoded)
            ref = policy if reference else [None] * len(policy)
        else:
            kept = [rollouts[index] for index in fitted.kept]
            policy, ref = both(
                lambda passed: score(POLICY, self.policy, passed)(fitted.encoded),
                lambda passed: self._of_reference(kept, fitted.encoded, score(REFERENCE, reference, passed), counts),
                advance=usage.advance, at_once=are_apart(self.policy.model, reference.model),
            )  # fmt: skip
        parts = zip(fitted.kept, fitted.encoded, policy, ref, strict=True)
        return {
            index: TokenLogProbs(encoded=item, policy=_array(p), ref=None if r is None else _array(r))
            for index, item, p, r in parts
        }, counts

    def _pass(self, what: str, model: Backbone, passed: Advance, *, usage: Usage, token_budget: int | None) -> _Score:
        """One model's pass, timed from now on; what the cache has is charged as it was when it was computed."""
        advance = usage.timing(what, model.model, passed)
        if self._cache is None:
            return partial(score_tokens, model.model, token_budget=token_budget, advance=advance)
        precision = f"{model.dtype}/{token_budget} tokens a batch"
        key = cache_key(weights_hash(model.folder), model.model.config, precision)
        cache = LogProbCache(self._cache, model_key=key)

        def read(encoded: Sequence[Encoded]) -> list[Tensor]:
            if not encoded:
                return []
            if missing := cache.missing([encoded]):
                cache.compute(model.model, missing, token_budget=token_budget, advance=advance)
            else:
                n_tokens, seconds = cache.spent([encoded])
                usage.models[what] += ModelUsage(tokens=n_tokens, seconds=seconds)
            return cache.read([encoded])

        return read

    def _of_reference(
        self, rollouts: Sequence[Rollout], encoded: Sequence[Encoded], score: _Score, counts: Counter[str]
    ) -> list[Tensor]:
        """The reference's log-probabilities, from sampling or computed."""
        stored = self._stored(rollouts, encoded, score, counts)
        rest = [index for index in range(len(encoded)) if index not in stored]
        computed = score([encoded[index] for index in rest])
        known = {**stored, **dict(zip(rest, computed, strict=True))}
        return [known[index] for index in range(len(encoded))]

    def _stored(
        self, rollouts: Sequence[Rollout], encoded: Sequence[Encoded], score: _Score, counts: Counter[str]
    ) -> dict[int, Tensor]:
        """By index, the reference's log-probabilities that rollouts have from sampling, some of them checked."""
        if not self._takes_stored:
            return {}
        dtype = self.policy.dtype
        key = model_key(
            weights_sha256=reference_of(self.config, source=self.policy.source).weights_sha256,
            template_sha256=self.config.template_sha256,
            dtype=dtype,
        )
        model = (self.reference or self.policy).model
        stored = stored_logprobs(rollouts, encoded, key=key, config=model.config, counts=counts)
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
        spans, tokens = steps_of(covered, response, splitter or self.config.splitter, given=steps)
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
    is_own_reference: bool = False,
) -> Description:  # fmt: skip
    """The description of a log-ratio; its default reward follows from its models."""
    plain = "without-reference" if reference is None else "with-reference"
    return Description(
        name="implicit", source=source, splitter=splitter, aggregation="min", kind="log_odds",
        rewards=("reference-only" if is_own_reference else plain,), settings={"beta": beta, "dtype": dtype},
        weights={"policy": policy, "reference": reference},
    )  # fmt: skip


def are_apart(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models are on different devices."""
    return next(one.parameters()).device != next(other.parameters()).device


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


def _warn_of_a_cast(policy: Backbone, reference: Backbone) -> None:
    """Warn if reading a float32 policy in 16 bits loses much of what training changed."""
    if policy.model.dtype not in (torch.bfloat16, torch.float16):
        return
    kept = kept_of_update(policy.folder, reference.folder, policy.model.dtype)
    if kept is not None and kept.cosine < _SAME_DIRECTION:
        warnings.warn(
            f"{policy.source}: kept in float32 and read in {policy.dtype}, which leaves {kept.norm:.0%} of the norm of "
            f"what training changed, at a cosine of {kept.cosine:.2f} to it; the rewards are another model's. Read it "
            "as it is kept: --dtype float32, or auto",
            stacklevel=4,
        )


def _recorded(recorded: Reference, source: str | Path, options: LoadOptions) -> Backbone:
    """Load the reference from the location in reward.json."""
    try:
        return load_backbone(recorded.source, options, revision=recorded.revision)
    except ModelError as error:
        raise ModelError(
            f"the reference that {source} names cannot be loaded: {error}. Say where it is now with --reference, or "
            "score without it: --reward without-reference"
        ) from error


def _array(logps: Tensor) -> Floats:
    return logps.numpy().astype(np.float64)


PLUGIN = ImplicitPRM
