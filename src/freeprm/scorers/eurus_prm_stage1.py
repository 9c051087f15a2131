"""EurusPRM: an implicit process reward model that was released without a reward.json, so its constants stand here.

The conversation is the template's (user: question, assistant: response); the score at a step is the accumulated
log-ratio, 0.001 * log(pi_phi / pi_ref) summed to the step's end, as the card's code gives it. That code takes the ends
of steps from prefixes that it tokenises again, which puts some of them a token or two late (`.\\n\\n` is one token of
Qwen's); here steps end where the tokens of the one text say so. The card joins its steps `Step i: ...` by blank lines;
a response is scored as it stands.

Source: the cards of PRIME-RL/EurusPRM-Stage1 and -Stage2; Cui et al. 2025, arXiv:2502.01456.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from freeprm.core.flops import ModelShape
from freeprm.core.score_kinds import ScoreKind
from freeprm.models.encoding import TooLong
from freeprm.models.loading import (
    DEFAULT_OPTIONS,
    LoadOptions,
    check_same_vocabulary,
    load_backbone,
    portable,
    template_hash,
    weights_hash,
)
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers.base import Scores
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoModels:
    """How a log-ratio that was released as two models is read."""

    name: str
    released: tuple[str, ...]
    """Hub ids that it was written for."""
    reference: str
    """The model that training started from."""
    beta: float
    splitter: str
    aggregation: str
    """How its authors make one score of the step scores."""

    def load(
        self, source: str, *, reference: str | None = None, options: LoadOptions = DEFAULT_OPTIONS
    ) -> "ImplicitScorer":
        """Load the model and its reference, both in the model's precision.

        Args:
            source: the trained model.
            reference: where the reference is; the one of the card if not given.
            options: device, dtype and the like.

        Raises:
            ModelError: not two language models of one vocabulary.
        """
        policy = load_backbone(source, options)
        ref = load_backbone(reference or self.reference, replace(options, dtype=policy.dtype))
        check_same_vocabulary(policy.tokenizer, ref.tokenizer)
        config = RewardConfig(
            beta=self.beta, base=self.reference, objective="ce", splitter=self.splitter,
            template_sha256=template_hash(policy.tokenizer),
            reference=Reference(source=portable(ref.source), weights_sha256=weights_hash(ref.folder)),
        )  # fmt: skip
        return ImplicitScorer(name=self.name, prm=ImplicitPRM(config, policy=policy, reference=ref))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitScorer:
    """An implicit process reward model as a `freeprm.scorers.base.Scorer`: q at each step's end."""

    name: str
    prm: ImplicitPRM

    @property
    def splitter(self) -> str | None:
        """The model's own way of cutting responses into steps."""
        return self.prm.config.splitter

    @property
    def kind(self) -> ScoreKind:
        """Log-ratios, read as log-odds."""
        return "log_odds"

    @property
    def device(self) -> torch.device:
        """Of the policy."""
        return self.prm.policy.model.device

    def identity(self) -> dict[str, Any]:
        """What decides its scores, besides the splitter."""
        return {"scorer": self.name, **self.prm.identity()}

    def shape(self) -> ModelShape:
        """What decides the cost of a token."""
        return ModelShape.of(self.prm.policy.model.config.get_text_config())

    def score(
        self,
        rollouts: Sequence[Rollout],
        *,
        splitter: str | None = None,
        too_long: TooLong = "exclude",
        token_budget: int | None = None,
        advance: Callable[[int], None] = lambda n_tokens: None,
    ) -> tuple[dict[int, Scores], Counter[str]]:
        """As `freeprm.scorers.base.Scorer.score`."""
        logps, counts = self.prm.logprobs(rollouts, too_long=too_long, token_budget=token_budget, advance=advance)
        scores = {}
        for index, item in logps.items():
            rollout = rollouts[index]
            read = self.prm.read(item, rollout.response, splitter=splitter, steps=rollout.extra.get("steps"))
            scores[index] = Scores(steps=read.steps, step_scores=read.q_values, n_tokens=len(item.encoded.ids))
        return scores, counts


PLUGIN = TwoModels(
    name="eurus_prm_stage1",
    released=("PRIME-RL/EurusPRM-Stage1",),
    reference="Qwen/Qwen2.5-Math-7B-Instruct",  # in two users' code that follows the card's demo
    beta=0.001,  # coef=0.001 (card)
    splitter="auto",  # `Step 1: ...` (card)
    aggregation="min",  # the minimum over steps (card)
)
