"""The choice among a problem's scored responses, by the rules of `freeprm select`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from freeprm.core.answers import key_among
from freeprm.core.answers.extraction import extract
from freeprm.core.score_kinds import BY_KIND, check_kinds, weightings
from freeprm.core.selectors import UNNAMED, Chosen, Sample, candidates, choose
from freeprm.core.voting import Floats, weighting
from freeprm.errors import ConfigError
from freeprm.scorers._scored import Scored, score_columns
from freeprm.types import Rollout


class Selected(NamedTuple):
    """What was chosen, and why."""

    rows: Sequence[Rollout]
    """The responses with their answers."""
    scores: Sequence[float]
    """(N,) one a response."""
    weights: Sequence[float]
    """(N,) in the weighted vote."""
    weighting: str
    choices: Mapping[str, Chosen]
    """By best_of_n, weighted_vote and majority."""

    @property
    def ranked(self) -> list[int]:
        """Indices, the best first; equals in order."""
        return sorted(range(len(self.scores)), key=lambda index: -self.scores[index])


def select_among(rows: Sequence[Rollout], *, aggregator: str, by: str = BY_KIND, weight_scale: float = 1.0) -> Selected:
    """Best-of-N, weighted vote and majority.

    Args:
        rows: N responses to one problem with the scores of one scorer, and their answers; see `with_answers`.
        aggregator: of step scores.
        by: how scores become weights: a name in `core.voting.WEIGHTINGS`, or `BY_KIND`.
        weight_scale: scores are multiplied by it before they are weights.

    Raises:
        ConfigError: no such weighting, or a scale that makes infinite scores.
        DataError: rows that contradict each other.
    """
    kinds = check_kinds("", by)
    name = rows[0].scorer or UNNAMED
    how = weightings(rows, weighting=by, kinds=kinds)[name].weighting

    def weigh(scores: Floats) -> Floats:
        with np.errstate(over="ignore"):
            scaled = scores * weight_scale
        if not np.isfinite(scaled).all():
            raise ConfigError(f"weight_scale {weight_scale:g}: makes scores that are not finite; use a smaller one")
        return weighting(how)(scaled)

    problem = candidates(
        [Sample(rollout=row, scored={name: row}) for row in rows], aggregators=[aggregator],
        key=key_among(row.pred for row in rows),
    )  # fmt: skip
    values = next(iter(problem.scores.values())).values
    chosen = choose(problem, None, weigh={name: weigh})
    return Selected(
        rows=rows, scores=values.tolist(), weights=weigh(values).tolist(), weighting=how,
        choices={selector.name.partition("/")[0]: choice for selector, choice in chosen.items()},
    )  # fmt: skip


def with_answers(rows: Sequence[Rollout]) -> list[Rollout]:
    """The rows; an answer that one lacks is extracted."""
    return [row if row.pred is not None else replace(row, pred=extract(row.response)) for row in rows]


def scored_row(scored: Scored, *, pred: str | None = None) -> Rollout:
    """A scored response as a row of `freeprm score`."""
    scores = scored.scores
    name = f"{scored.about.name} {scored.reward}".strip()
    return replace(
        scored.rollout, pred=pred, scorer=name, step_scores=scores.step_scores, score=scores.score,
        extra={**score_columns(scores, scored.about.kind), **scores.columns},
    )  # fmt: skip
