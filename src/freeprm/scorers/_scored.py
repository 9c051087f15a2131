"""A response with its scores, and what they say: sums, probabilities, one number for the whole."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from freeprm.core.rewards import aggregator, q_values
from freeprm.core.score_kinds import COLUMN, ScoreKind, probability
from freeprm.scorers.base import Description, Scores
from freeprm.types import Rollout


def score_columns(scores: Scores, kind: ScoreKind | None) -> dict[str, Any]:
    """Columns that a response's row has beside its scores."""
    return {
        **({} if kind is None else {COLUMN: kind}),
        **({} if scores.reward is None else {"reward": scores.reward}),
        **({} if scores.step_scores is None else {"step_spans": [list(span) for span in scores.steps]}),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One response with its scores."""

    rollout: Rollout
    scores: Scores
    about: Description
    reward: str
    """The reward that was asked for; empty if the scorer has none."""

    @property
    def q(self) -> list[float] | None:
        """(K,) running sums of a log-ratio's step rewards; None of other scores."""
        if self.scores.step_scores is None or not self.reward:
            return None
        return [float(value) for value in q_values(np.array(self.scores.step_scores))]

    @property
    def p_correct(self) -> list[float] | None:
        """(K,) P(correct) after each step; None if the scores say nothing of it."""
        if self.scores.step_scores is None or self.reward not in ("", "with-reference"):
            return None
        values = self.q if self.reward else self.scores.step_scores
        found = [probability(value, self.about.kind) for value in values or ()]
        return None if None in found else [value for value in found if value is not None]

    @property
    def p(self) -> float | None:
        """P(correct) of the whole response: after its last step."""
        if self.scores.step_scores is None:
            return probability(float(self.scores.score or 0.0), self.about.kind)
        found = self.p_correct
        return found[-1] if found else None

    def score(self, combine: str) -> float:
        """One score of the response."""
        if self.scores.step_scores is None:
            return float(self.scores.score or 0.0)
        return aggregator(combine)(self.scores.step_scores)
