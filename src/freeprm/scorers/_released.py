"""Released reward models: a recipe is how a response is written, where the model is read, and how outputs are scores.

A recipe is data, with the constants of the model's card or of its authors' code; each recipe's file cites them. Common
to all: a response is never changed, a marker already in a response is refused, and results do not depend on the batch.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from freeprm.core.flops import ModelShape
from freeprm.core.ledger import SCORER
from freeprm.core.score_kinds import ScoreKind
from freeprm.core.steps import TOKENS, given_steps
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import ConfigError, DataError, SpanError
from freeprm.models.encoding import fit
from freeprm.models.heads import Layout
from freeprm.models.rewarding import RewardModel, load_reward_model, load_token_model, read_marked
from freeprm.models.scoring_input import ScoringInput, check_tokens, response_name
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import DEFAULT_SCORING, Description, Scorer, ScorerSource, Scores, ScoringOptions
from freeprm.types import Rollout, Span

Normaliser = Callable[[Tensor], Tensor]
"""(m, C) outputs of the head, float32 -> (m,) scores."""


class ReadingForm(Protocol):
    """How a recipe writes a response, and where the model is read."""

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The model's input.

        Args:
            tokenizer: the model's.
            rollout: the response with its prompt.
            steps: K spans that tile the response; none if the recipe has one score for it.

        Raises:
            DataError: the response, or its prompt, does not fit the form.
            ModelError: the tokenizer does not fit.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedRecipe:
    """The recipe of a family of models; see `freeprm.scorers.base.Member`."""

    name: str
    """The member's name."""
    released: tuple[str, ...]
    """Hub ids that it was written for."""
    form: ReadingForm
    tokens: Mapping[str, int]
    """Texts that must be a single token, and its id."""
    head: Layout | tuple[int, ...]
    """The head on the transformer; or the ids of a language model's tokens whose logits are read."""
    normalise: Normaliser
    kind: ScoreKind
    splitter: str | None
    """The authors' splitter; None for one score a response."""
    aggregation: str | None
    """The authors' aggregator of step scores."""

    @property
    def architectures(self) -> tuple[str, ...]:
        """Model classes that only this recipe has."""
        return self.head.architectures if isinstance(self.head, Layout) else ()

    def describe(self, source: ScorerSource) -> Description:
        """See `Member`."""
        source.refuse_log_ratio(f"{self.name} scores with one model")
        return Description(
            name=self.name, source=source.source, splitter=self.splitter, aggregation=self.aggregation, kind=self.kind,
            settings={
                "scorer": source.scorer or self.name, "dtype": source.options.dtype,
                "trust_remote_code": source.options.trust_remote_code,
            },
            weights={"model": source.folder, "reference": None},
        )  # fmt: skip

    def load(self, source: ScorerSource) -> "ReleasedScorer":
        """See `Member`.

        Raises:
            ConfigError: an option of log-ratios, e.g. a reference.
            ModelError: another kind of model, or a tokenizer with other tokens than the recipe's.
        """
        about = self.describe(source)
        if isinstance(self.head, Layout):
            model = load_reward_model(source.source, self.head, source.options, recipe=self.name)
        else:
            model = load_token_model(source.source, self.head, source.options, recipe=self.name)
        check_tokens(model.backbone.tokenizer, self.tokens, recipe=self.name)
        about = replace(about, settings={**about.settings, "dtype": model.backbone.dtype})
        return ReleasedScorer(about=about, recipe=self, model=model)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedScorer(Scorer):
    """A released model with its recipe."""

    about: Description
    recipe: ReleasedRecipe
    model: RewardModel

    def shape(self) -> ModelShape:
        """See `Scorer`; without the head, which is read at few positions."""
        return ModelShape.of(self.model.backbone.model.config.get_text_config(), n_outputs=0)

    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        """See `Scorer`.

        Raises:
            ConfigError: "truncate", which would cut off the marks at a response's end; or an unknown splitter.
            DataError: a response that does not fit the recipe, or one too long with "error".
            SpanError: the row's steps are not the response's.
        """
        self.about.check(options)
        if options.too_long == "truncate":
            raise ConfigError(
                f"{self.about.name}: too_long='truncate' would cut off what is read; choose error or exclude"
            )
        present = [index for index, rollout in enumerate(rollouts) if rollout.response.strip()]
        written = [self.write(rollouts[index], splitter=options.splitter) for index in present]
        fitted = fit(written, max_length=self.model.backbone.max_length, too_long=options.too_long)
        if len(present) < len(rollouts):
            fitted.counts["excluded: empty response"] = len(rollouts) - len(present)
        outputs = read_marked(
            self.model, fitted.encoded, n_outputs=lambda item: len(item.steps) or 1,
            token_budget=options.batch_tokens([self.model.backbone.model], packed=False, reads_logits=False),
            advance=(usage or Usage()).timing(SCORER, self.model.backbone.model),
        )  # fmt: skip
        parts = zip(fitted.kept, fitted.encoded, outputs, strict=True)
        return {present[row]: self._scores(item, output) for row, item, output in parts}, fitted.counts

    def write(self, rollout: Rollout, *, splitter: str | None = None) -> ScoringInput:
        """The model's input for a response."""
        return self.recipe.form.write(self.model.backbone.tokenizer, rollout, self._steps(rollout, splitter))

    def _steps(self, rollout: Rollout, splitter: str | None) -> Sequence[Span]:
        if self.recipe.splitter is None:
            return []
        given = rollout.extra.get("steps")
        if given is None:
            name = splitter or self.recipe.splitter
            if name == TOKENS:
                raise ConfigError(f"{self.about.name}: scores steps, not tokens; choose a splitter of text")
            return splitter_named(name)(rollout.response)
        try:
            return given_steps(rollout.response, given)
        except SpanError as error:
            raise SpanError(f"{response_name(rollout)}: {error}") from error

    def _scores(self, item: ScoringInput, output: Tensor) -> Scores:
        values = tuple(self.recipe.normalise(output).tolist())
        if item.steps:
            return Scores(steps=item.steps, step_scores=values, n_tokens=len(item.ids))
        return Scores(score=values[0], n_tokens=len(item.ids))


def first_of_two(outputs: Tensor) -> Tensor:
    """The first of two softmax outputs, in float32; the authors' code often has 16 bits."""
    return outputs.softmax(-1)[:, 0]


def second_of_two(outputs: Tensor) -> Tensor:
    """The second of two softmax outputs."""
    return outputs.softmax(-1)[:, 1]


def sigmoid(outputs: Tensor) -> Tensor:
    """The sigmoid of the only output."""
    return outputs[:, 0].sigmoid()


def unchanged(outputs: Tensor) -> Tensor:
    """The only output, unbounded."""
    return outputs[:, 0]


def refuse_marker(rollout: Rollout, at: int | None, *, marker: str, where: str) -> None:
    """Raise a DataError if the recipe's marker stands in the `where` ("response" or "prompt"), at character `at`."""
    if at is not None:
        raise DataError(
            f"{response_name(rollout)}: the {where} holds the step marker {marker!r} at character {at}, but markers "
            "are put in by the scorer. Take them out and give the steps in the column 'steps' (`freeprm convert` does "
            "so for Math-Shepherd's rows)"
        )
