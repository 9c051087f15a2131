"""The implicit process reward model: two causal language models whose log-ratio is the reward."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from freeprm.core.ledger import POLICY, REFERENCE
from freeprm.core.rewards import REWARDS, Floats, check_reward, q_values, step_rewards
from freeprm.errors import ConfigError, DataError, ModelError
from freeprm.models.agreement import Override, check_reference, check_template, recorded_date, reference_of, with_beta
from freeprm.models.casting import kept_of_update
from freeprm.models.encoding import Encoded, TooLong, check_vocabulary, encode, fit
from freeprm.models.loading import (
    DEFAULT_OPTIONS,
    Backbone,
    LoadOptions,
    check_same_vocabulary,
    load_backbone,
    portable,
    resolve,
    template_hash,
    weights_hash,
)
from freeprm.models.logprobs import score_tokens
from freeprm.models.reference_logprobs import check_stored, model_key, stored_logprobs
from freeprm.models.reward_config import Reference, RewardConfig, load_reward_config
from freeprm.scorers._cutting import steps_of
from freeprm.scorers._tally import Tally
from freeprm.scorers._two_models import Advance, are_apart, both
from freeprm.types import Prompt, ResponseScore, Rollout

_SAME_DIRECTION = 0.99
"""Cosine of two updates above which nobody is warned: 14 % of the norm is off to the side."""
_Score = Callable[[Sequence[Encoded]], list[Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogProbs:
    """Both models' log-probabilities of one response's tokens."""

    encoded: Encoded
    policy: Floats
    """(T,)"""
    ref: Floats | None
    """(T,); None where the reference was not loaded."""


class ImplicitPRM:
    """Scores responses with r = beta * log(pi_phi / pi_ref), at any granularity.

    Args:
        config: beta, the reference and the splitter; see reward.json.
        policy: the trained model.
        reference: the frozen model it started from; None to score without it.
        stored_reference: where rollouts bring the reference's log-probabilities from sampling, take those.
    """

    def __init__(
        self, config: RewardConfig, *, policy: Backbone, reference: Backbone | None, stored_reference: bool = True
    ):
        self.config, self.policy, self.reference = config, policy, reference
        self._takes_stored = stored_reference

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
        options: LoadOptions = DEFAULT_OPTIONS,
        reference_device: str | None = None,
    ) -> Self:
        """Load a folder that `freeprm train` wrote.

        Args:
            source: the folder, or a hub id.
            reference: where the reference is now, if not where reward.json says; must be the same weights.
            load_reference: False to score without it, at half the cost.
            beta: must equal reward.json's, unless overridden.
            override: what may differ from reward.json: "beta", "reference", "template".
            stored_reference: see `ImplicitPRM`.
            options: device, dtype and the like, for both models.
            reference_device: of the reference, if another one; the models then work at the same time.

        Raises:
            ModelError: no reward.json, one of a model that gives values, or a model that cannot be loaded.
            RewardMismatchError: another beta, reference or chat template than reward.json records.
        """
        config = load_reward_config(resolve(str(source)))
        recorded = reference_of(config, source=str(source))
        policy = load_backbone(str(source), recorded_date(config, options, override=override))
        check_template(config, policy, override=override)
        config = with_beta(config, policy, beta=beta, override=override)
        if not load_reference:
            return cls(config, policy=policy, reference=None)
        # Both in the policy's precision: the log-ratio would be of two roundings otherwise.
        options = replace(options, dtype=policy.dtype, device=reference_device or options.device)
        ref = load_backbone(str(reference), options) if reference is not None else _recorded(recorded, source, options)
        check_reference(config, ref, policy=policy, override=override)
        check_same_vocabulary(policy.tokenizer, ref.tokenizer)
        _warn_of_a_cast(policy, ref)
        return cls(config, policy=policy, reference=ref, stored_reference=stored_reference)

    @classmethod
    def untrained(cls, model: Backbone, *, beta: float = 1.0, splitter: str = "auto") -> Self:
        """A model as its own reference: every log-ratio is exactly 0, and `reference-only` is its log-likelihood."""
        ref = Reference(source=portable(model.source), weights_sha256=weights_hash(model.folder))
        config = RewardConfig(
            beta=beta, base=model.source, reference=ref, objective="none", splitter=splitter,
            template_sha256=template_hash(model.tokenizer),
        )  # fmt: skip
        return cls(config, policy=model, reference=model)

    def identity(self) -> dict[str, Any]:
        """What decides its scores, besides the splitter: for the settings of a run."""
        models = {"policy": self.policy, "reference": self.reference}
        return {
            "beta": self.config.beta,
            "dtype": self.policy.dtype,
            **{f"{name}_sha256": model and weights_hash(model.folder) for name, model in models.items()},
        }

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
            steps: the steps of each response, given by the caller instead of a splitter.
            reward: a name in `freeprm.core.rewards.REWARDS`.
            too_long: what to do with a response that the context does not hold; "exclude" is refused here,
                because the caller could not tell which score is missing.
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
        rollouts = [
            Rollout(problem_id="prompt", sample_idx=index, prompt=prompt, response=response, truncated=not finished)
            for index, response in enumerate(responses)
        ]
        logps, _ = self.logprobs(rollouts, too_long=too_long)
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

    def logprobs(
        self,
        rollouts: Sequence[Rollout],
        *,
        too_long: TooLong = "exclude",
        token_budget: int | None = None,
        advance: Callable[[int], None] = lambda n_tokens: None,
        tally: Tally | None = None,
    ) -> tuple[dict[int, TokenLogProbs], Counter[str]]:
        """Both models' token log-probabilities: all that any reward, splitter or granularity is computed from.

        Args:
            rollouts: any number, best with those of one prompt together; empty responses are left out.
            too_long: what to do with a response that the context does not hold.
            token_budget: tokens in one batch; see `score_tokens`.
            advance: told the tokens of each batch, once for each model.
            tally: counts and times what each model reads.

        Returns:
            By index into `rollouts`, without those left out; and the counts of what was left out or cut, by reason,
            and of where the reference's came from.
        """
        present = [index for index, rollout in enumerate(rollouts) if rollout.response]
        chosen = [rollouts[index] for index in present]
        encoded = encode(self.policy.tokenizer, chosen)
        for one in filter(None, (self.policy, self.reference)):
            check_vocabulary(encoded, one.model.config, model=one.source)
        fitted = fit(encoded, max_length=self.policy.max_length, too_long=too_long)

        def passed(n_tokens: int, n_responses: int) -> None:
            advance(n_tokens)

        counts = +Counter(fitted.counts)
        score = partial(_scoring, tally=tally or Tally(), token_budget=token_budget)
        reference = self.reference
        ref: Sequence[Tensor | None]
        if reference is None or reference is self.policy:
            policy = score(POLICY, self.policy, passed)(fitted.encoded)
            ref = policy if reference else [None] * len(policy)
        else:
            kept = [chosen[row] for row in fitted.kept]
            policy, ref = both(
                lambda tell: score(POLICY, self.policy, tell)(fitted.encoded),
                lambda tell: self._of_reference(kept, fitted.encoded, score(REFERENCE, reference, tell), counts),
                advance=passed, at_once=are_apart(self.policy.model, reference.model),
            )  # fmt: skip
        if len(chosen) < len(rollouts):
            counts["excluded: empty response"] = len(rollouts) - len(chosen)
        parts = zip(fitted.kept, fitted.encoded, policy, ref, strict=True)
        return {
            present[kept]: TokenLogProbs(encoded=item, policy=_array(p), ref=None if r is None else _array(r))
            for kept, item, p, r in parts
        }, counts

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
        """By index, the reference's log-probabilities that rollouts bring from sampling, checked on some of them."""
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
        """Rewards at every granularity from token log-probabilities; no model is run.

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


def _scoring(what: str, model: Backbone, tell: Advance, *, tally: Tally, token_budget: int | None) -> _Score:
    """One model's pass, timed from now on."""
    return partial(score_tokens, model.model, token_budget=token_budget, advance=tally.timing(what, model.model, tell))


def _warn_of_a_cast(policy: Backbone, reference: Backbone) -> None:
    """Say what is left of training where a policy that is kept in float32 is read in 16 bits."""
    if policy.model.dtype not in (torch.bfloat16, torch.float16):
        return
    kept = kept_of_update(policy.folder, reference.folder, policy.model.dtype)
    if kept is not None and kept.cosine < _SAME_DIRECTION:
        warnings.warn(
            f"{policy.source}: kept in float32 and read in {policy.dtype}, which leaves {kept.norm:.0%} of the norm of "
            f"what training changed, at a cosine of {kept.cosine:.2f} to it; the rewards are another model's. Read it "
            "as it is kept: --dtype float32, or auto",
            stacklevel=3,
        )


def _recorded(recorded: Reference, source: str | Path, options: LoadOptions) -> Backbone:
    """The reference from where reward.json says it is."""
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
