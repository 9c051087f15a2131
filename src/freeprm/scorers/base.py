"""What a scorer must give: one score a step, or one for the response.

The implicit process reward model gives more (see `freeprm.scorers.implicit`); this is what all of them have in common.
A member of the family, told by its file's name, sets `PLUGIN` to what satisfies `Scoring`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from freeprm.core.flops import ModelShape
from freeprm.core.score_kinds import ScoreKind
from freeprm.models.encoding import TooLong
from freeprm.models.loading import LoadOptions
from freeprm.types import Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a scorer says of one response: step scores, or one score."""

    steps: tuple[Span, ...] = ()
    """K character spans that tile the response."""
    step_scores: tuple[float, ...] | None = None
    """(K,)"""
    score: float | None = None
    """Of the whole response, where the scorer gives only that."""
    n_tokens: int
    """Tokens of what was read for it, the prompt included."""


class Scorer(Protocol):
    """A loaded scorer."""

    @property
    def name(self) -> str:
        """What rows call it unless told otherwise."""
        ...

    @property
    def splitter(self) -> str | None:
        """How responses are cut into steps unless their rows bring steps; None where it scores whole responses."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides its scores, besides the splitter: for the settings of a run."""
        ...

    def shape(self) -> ModelShape:
        """What decides the cost of a token."""
        ...

    def score(
        self,
        rollouts: Sequence[Rollout],
        *,
        splitter: str | None = None,
        too_long: TooLong = "exclude",
        token_budget: int | None = None,
        advance: Callable[[int], None] = lambda n_tokens: None,
    ) -> tuple[dict[int, Scores], Counter[str]]:
        """Score responses, whose steps are those of their column `steps`, where they have one.

        Args:
            rollouts: any number.
            splitter: a name in `freeprm.core.steps.SPLITTERS`; the scorer's own by default.
            too_long: what to do with a response that the context does not hold.
            token_budget: tokens in one batch.
            advance: told the tokens of each batch.

        Returns:
            By index into `rollouts`, without those left out; and the counts of what was left out, by reason.

        Raises:
            FreePRMError: a response that cannot be scored as it stands; names it.
        """
        ...


@runtime_checkable
class KnowsKind(Protocol):
    """A scorer that says what its scores are, so that votes can be weighed by them; ours do."""

    @property
    def kind(self) -> ScoreKind:
        """Log-odds, probabilities, or unbounded."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A scorer that knows what its model works on."""

    @property
    def device(self) -> torch.device:
        """Of the model."""
        ...


class Scoring(Protocol):
    """A way of scoring, before a model is loaded for it."""

    @property
    def name(self) -> str:
        """The member's name."""
        ...

    @property
    def splitter(self) -> str | None:
        """As `Scorer.splitter`."""
        ...

    @property
    def aggregation(self) -> str | None:
        """How its authors make one score of the step scores; a name in `freeprm.core.rewards.AGGREGATORS`."""
        ...

    def load(self, source: str, *, reference: str | None = None, options: LoadOptions = ...) -> Scorer:
        """Load a model for it.

        Args:
            source: a folder or a hub id.
            reference: the second model, where it takes two.
            options: device, dtype and the like.

        Raises:
            ModelError: not a model of this kind.
        """
        ...


@runtime_checkable
class ByFolder(Protocol):
    """A member that scores as each model's folder says."""

    def of(self, source: str) -> Scoring:
        """The way of scoring that a folder or a hub id asks for.

        Raises:
            ModelError: it does not say, or is not of this member's kind.
        """
        ...
