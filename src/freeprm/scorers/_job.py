"""The work of scoring in one process, with any scorer: parts of the rollouts in, rows out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from freeprm.core import score_kinds
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import Row
from freeprm.scorers._scored import score_columns
from freeprm.scorers._usage import ModelUsage, Usage
from freeprm.scorers.base import Scorer, ScorerSource, Scores, ScoringOptions
from freeprm.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Responses that are scored together in any session, so that a resumed run computes the same bits."""

    number: int
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPart:
    """The result of a part."""

    part: int
    rows: Mapping[str, list[Row]]
    """By the scorer's name in rows."""
    left_out: list[int]
    """Indices into the part of responses without rows."""
    counts: Mapping[str, int]
    """Responses left out or cut, by reason."""
    sequence_tokens: int
    """Total of responses, each with its prompt."""
    readings: Mapping[str, ModelUsage]
    """By charge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringJob:
    """A worker's input; picklable if `scorer` is a source and `passed` is None."""

    scorer: Scorer | ScorerSource
    names: Mapping[str, str]
    """The scorer's name in rows -> the reward in these rows; "" for a scorer without rewards."""
    options: ScoringOptions
    passed: Callable[[int], None] | None = None
    """Called with the tokens of each batch."""

    def worker(self) -> Callable[[Sequence[Part]], Iterator[ScoredPart]]:
        """A worker that holds the models."""
        return partial(self._scored, self.scorer.load() if isinstance(self.scorer, ScorerSource) else self.scorer)

    def _scored(self, scorer: Scorer, parts: Sequence[Part]) -> Iterator[ScoredPart]:
        for part in parts:
            usage = Usage(self.passed)
            found, counts = scorer.score_rollouts(part.rollouts, self.options, usage=usage)
            yield ScoredPart(
                part=part.number,
                rows={
                    name: [
                        _row(part.rollouts[index], name, scores.others.get(reward, scores), scorer)
                        for index, scores in found.items()
                    ]
                    for name, reward in self.names.items()
                },
                left_out=[index for index in range(len(part.rollouts)) if index not in found],
                counts=counts,
                sequence_tokens=sum(scores.n_tokens for scores in found.values()),
                readings=usage.models,
            )


def _row(rollout: Rollout, name: str, scores: Scores, scorer: Scorer) -> Row:
    kind = scorer.about.kind
    columns = score_columns(scores, kind)
    dropped = {*scorer.consumes, *([score_kinds.COLUMN] if kind is None else [])}
    carried = {column: value for column, value in rollout.extra.items() if column not in dropped}
    scored = replace(
        rollout, scorer=name, step_scores=scores.step_scores, score=scores.score, extra={**carried, **columns}
    )
    return {**rollout_row(scored), **scores.columns}
