"""Models of values trained here: outcome reward models, Math-Shepherd's and AutoPSV's process reward models.

A folder that `freeprm train` wrote with another parameterisation than the log-ratio. Scores are the values in nats,
log-odds if the objective was a cross-entropy, read as in training: at the end of each step, or of the response.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from transformers import PreTrainedTokenizerBase

from freeprm.core.flops import ModelShape
from freeprm.core.ledger import SCORER
from freeprm.core.steps import Reasoning
from freeprm.errors import SpanError
from freeprm.models.encoding import Encoded
from freeprm.models.loading import Backbone
from freeprm.models.reward_config import check_template, load_reward_config, recorded_date
from freeprm.models.values import Valuation, load_valued, score_values, valuation_of
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import (
    DEFAULT_SCORING,
    Description,
    Scorer,
    ScorerSource,
    Scores,
    ScoringOptions,
    fit_rollouts,
    steps_of,
)
from freeprm.types import Rollout, Span

_CROSS_ENTROPIES = ("ce", "step_ce", "osv")
"""Objectives for which sigmoid(value) is the probability of the label; a pairwise one leaves the zero undetermined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Valued(Scorer):
    """A model of values."""

    about: Description
    backbone: Backbone
    """From `load_valued`."""
    valuation: Valuation

    @classmethod
    def describe(cls, source: ScorerSource) -> Description:
        """See `freeprm.scorers.base.Member`; the default aggregator is the minimum, as in Math-Shepherd."""
        source.refuse_log_ratio("this model gives values")
        config = load_reward_config(source.folder)
        valuation = valuation_of(config, source=source.source)
        by_step = valuation.read_at == "steps"
        return Description(
            name=valuation.name,
            source=source.source,
            splitter=config.splitter if by_step else None,
            aggregation="min" if by_step else None,
            reasoning=config.reasoning,
            kind="log_odds" if config.objective in _CROSS_ENTROPIES else "unbounded",
            settings={
                "scorer": "valued", "dtype": source.options.dtype,
                "trust_remote_code": source.options.trust_remote_code, **asdict(valuation),
                **({} if config.reasoning == "include" else {"reasoning": config.reasoning}),
            },
            weights={"model": source.folder, "reference": None},
        )  # fmt: skip

    @classmethod
    def load(cls, source: ScorerSource) -> Self:
        """See `freeprm.scorers.base.Member`.

        Raises:
            ConfigError: an option of log-ratios, e.g. a reference.
            ModelError: no reward.json, one of an implicit process reward model, or weights of another kind.
            RewardMismatchError: another chat template than in training.
        """
        about, config = cls.describe(source), load_reward_config(source.folder)
        valuation = valuation_of(config, source=source.source)
        backbone = load_valued(source.source, valuation, recorded_date(config, source.options), fresh=False)
        check_template(config, backbone.tokenizer, source=backbone.source)
        about = replace(about, settings={**about.settings, "dtype": backbone.dtype})
        return cls(about=about, backbone=backbone, valuation=valuation)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `Scorer`."""
        return self.backbone.tokenizer

    def shape(self) -> ModelShape:
        """See `Scorer`; without heads, which are small and read at few tokens."""
        return ModelShape.of(self.backbone.model.config.get_text_config(), n_outputs=0)

    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        """See `Scorer`; the splitter "tokens" gives the value after each token.

        Raises:
            SpanError: the steps of a row are not its response's; names the response.
            DataError: a response that is too long, with "error".
            NonFiniteError: a value is not finite; names the response.
        """
        self.about.check(options)
        reasoning = options.reasoning or self.about.reasoning or "include"
        fitted = fit_rollouts(
            rollouts, self.backbone.tokenizer, {self.backbone.source: self.backbone.model.config},
            max_length=self.backbone.max_length, too_long=options.too_long,
            reasoning=reasoning,
        )  # fmt: skip
        cuts = [
            self._steps(rollouts[index], item, options.splitter, reasoning)
            for index, item in zip(fitted.kept, fitted.encoded, strict=True)
        ]
        values = score_values(
            self.backbone.model, fitted.encoded, [self.valuation.places(tokens) for _, tokens in cuts],
            token_budget=options.batch_tokens([self.backbone.model], packed=False, reads_logits=False),
            advance=(usage or Usage()).timing(SCORER, self.backbone.model),
        )  # fmt: skip
        parts = zip(fitted.kept, fitted.encoded, cuts, values, strict=True)
        return {
            index: self._scores(spans, value.tolist(), n_tokens=len(item.ids))
            for index, item, (spans, _), value in parts
        }, fitted.counts

    def _steps(
        self, rollout: Rollout, item: Encoded, splitter: str | None, reasoning: Reasoning
    ) -> tuple[Sequence[Span], Sequence[Span]]:
        """Characters and tokens of each step, or of the whole response."""
        own = self.about.splitter
        if own is None:
            return [], [Span(0, item.n_response)]
        try:
            given = rollout.extra.get("steps")
            return steps_of(item.spans, rollout.response, splitter or own, given=given, reasoning=reasoning)
        except SpanError as error:
            raise SpanError(f"{item.name}: {error}") from error

    def _scores(self, spans: Sequence[Span], values: Sequence[float], *, n_tokens: int) -> Scores:
        if self.about.splitter is None:
            return Scores(score=values[0], n_tokens=n_tokens)
        return Scores(steps=tuple(spans), step_scores=tuple(values), n_tokens=n_tokens)


PLUGIN = Valued
