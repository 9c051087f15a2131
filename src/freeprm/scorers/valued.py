"""Trained models of values: outcome reward models, Math-Shepherd's and AutoPSV's process reward models, trained here.

A folder that `freeprm train` wrote with another parameterisation than the log-ratio. Scores are the values as they are,
in nats, and log-odds where the objective was a cross-entropy. They are read where they were trained: at the end of each
step, or of the response.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import torch

from freeprm.core.flops import ModelShape
from freeprm.core.score_kinds import ScoreKind
from freeprm.errors import ConfigError, SpanError
from freeprm.models.agreement import check_template, recorded_date
from freeprm.models.encoding import Encoded, TooLong, check_vocabulary, encode, fit
from freeprm.models.loading import DEFAULT_OPTIONS, Backbone, LoadOptions, resolve, weights_hash
from freeprm.models.reward_config import load_reward_config
from freeprm.models.values import Valuation, load_valued, score_values, valuation_of
from freeprm.scorers._cutting import steps_of
from freeprm.scorers.base import Scores, Scoring
from freeprm.types import Rollout, Span

NAME = "valued"
_CROSS_ENTROPIES = ("ce", "step_ce", "osv")
"""Objectives under which sigmoid(value) is the probability of the label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuedScoring:
    """What reward.json says of scoring, before the model is loaded; see `freeprm.scorers.base.Scoring`."""

    name: str
    """Such as "linear steps"."""
    splitter: str | None
    """Of training; None where the response is read."""
    aggregation: str | None
    """The lowest value counts, as in Math-Shepherd; None where there is one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What decides the scores besides the weights."""

    def load(self, source: str, *, reference: str | None = None, options: LoadOptions = DEFAULT_OPTIONS) -> "Valued":
        """See `Valued.load`."""
        return Valued.load(source, reference=reference, options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Valued:
    """A model of values; see `freeprm.scorers.base.Scorer`."""

    backbone: Backbone
    """As `load_valued` gives it."""
    valuation: Valuation
    steps: str
    """How responses are cut into steps unless told otherwise."""
    objective: str
    """That trained it."""

    @classmethod
    def of(cls, source: str) -> Scoring:
        """What a folder, or a hub id, says of scoring with it.

        Raises:
            ModelError: no reward.json, or one of an implicit process reward model.
        """
        config = load_reward_config(resolve(source))
        return _scoring(valuation_of(config, source=source), config.splitter)

    @classmethod
    def load(cls, source: str, *, reference: str | None = None, options: LoadOptions = DEFAULT_OPTIONS) -> Self:
        """Load a folder that `freeprm train` wrote.

        Raises:
            ConfigError: a reference, which values have not.
            ModelError: no reward.json, one of an implicit process reward model, or weights of another kind.
            RewardMismatchError: another chat template than in training.
        """
        if reference is not None:
            raise ConfigError(f"{source}: values have no reference; leave it out")
        config = load_reward_config(resolve(source))
        valuation = valuation_of(config, source=source)
        backbone = load_valued(source, valuation, recorded_date(config, options), fresh=False)
        check_template(config, backbone)
        return cls(backbone=backbone, valuation=valuation, steps=config.splitter, objective=config.objective)

    @property
    def name(self) -> str:
        """Parameterisation and where it is read."""
        return self.valuation.name

    @property
    def splitter(self) -> str | None:
        """As in training; None where the response is read."""
        return _scoring(self.valuation, self.steps).splitter

    @property
    def kind(self) -> ScoreKind:
        """Log-odds where cross-entropy made them so; a pairwise objective leaves the zero open."""
        return "log_odds" if self.objective in _CROSS_ENTROPIES else "unbounded"

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self.backbone.model.device

    def identity(self) -> dict[str, Any]:
        """What decides its scores, besides the splitter."""
        return {
            "scorer": NAME, "dtype": self.backbone.dtype, "model_sha256": weights_hash(self.backbone.folder),
            **_scoring(self.valuation, self.steps).settings,
        }  # fmt: skip

    def shape(self) -> ModelShape:
        """What decides the cost of a token; heads, read at a few tokens and of one or two rows, are left out."""
        config = self.backbone.model.config.get_text_config()
        whole = ModelShape.of(config)
        return replace(whole, n_parameters=whole.n_parameters - config.hidden_size * config.vocab_size)

    def score(
        self,
        rollouts: Sequence[Rollout],
        *,
        splitter: str | None = None,
        too_long: TooLong = "exclude",
        token_budget: int | None = None,
        advance: Callable[[int], None] = lambda n_tokens: None,
    ) -> tuple[dict[int, Scores], Counter[str]]:
        """As `freeprm.scorers.base.Scorer.score`; a splitter "tokens" gives the value after each token.

        Raises:
            SpanError: the steps of a row are not its response's; names the response.
            DataError: a response that is too long, with "error".
            NonFiniteError: a value is no number; names the response.
        """
        present = [index for index, rollout in enumerate(rollouts) if rollout.response]
        chosen = [rollouts[index] for index in present]
        encoded = encode(self.backbone.tokenizer, chosen)
        check_vocabulary(encoded, self.backbone.model.config, model=self.backbone.source)
        fitted = fit(encoded, max_length=self.backbone.max_length, too_long=too_long)
        counts = +Counter(fitted.counts)
        if len(chosen) < len(rollouts):
            counts["excluded: empty response"] = len(rollouts) - len(chosen)
        cuts = [self._steps(chosen[row], item, splitter) for row, item in zip(fitted.kept, fitted.encoded, strict=True)]
        values = score_values(
            self.backbone.model, fitted.encoded, [self.valuation.places(tokens) for _, tokens in cuts],
            token_budget=token_budget, advance=lambda n_tokens, n_responses: advance(n_tokens),
        )  # fmt: skip
        scores = {
            present[row]: self._scores(spans, said.tolist(), n_tokens=len(item.ids))
            for row, item, (spans, _), said in zip(fitted.kept, fitted.encoded, cuts, values, strict=True)
        }
        return scores, counts

    def _steps(self, rollout: Rollout, item: Encoded, splitter: str | None) -> tuple[Sequence[Span], Sequence[Span]]:
        """Characters and tokens of each step; of the whole, where the response is read."""
        if self.splitter is None:
            return [], [Span(0, item.n_response)]
        try:
            return steps_of(item.spans, rollout.response, splitter or self.steps, given=rollout.extra.get("steps"))
        except SpanError as error:
            raise SpanError(f"{item.name}: {error}") from error

    def _scores(self, spans: Sequence[Span], values: Sequence[float], *, n_tokens: int) -> Scores:
        if self.splitter is None:
            return Scores(score=values[0], n_tokens=n_tokens)
        return Scores(steps=tuple(spans), step_scores=tuple(values), n_tokens=n_tokens)


def _scoring(valuation: Valuation, splitter: str) -> ValuedScoring:
    by_step = valuation.read_at == "steps"
    return ValuedScoring(
        name=valuation.name, splitter=splitter if by_step else None, aggregation="min" if by_step else None,
        settings=asdict(valuation),
    )  # fmt: skip


PLUGIN = Valued
