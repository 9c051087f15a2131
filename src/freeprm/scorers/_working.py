"""The work of scoring, as one process does it: parts of the rollouts in, rows out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from freeprm.core import score_kinds
from freeprm.errors import SpanError
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import Row
from freeprm.models.encoding import TooLong
from freeprm.models.reference_logprobs import COLUMNS
from freeprm.scorers._reading import PRMSource
from freeprm.scorers._tally import ModelUsage, Tally
from freeprm.scorers.implicit import ImplicitPRM, TokenLogProbs
from freeprm.types import ResponseScore, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Responses that are scored together, whatever is done already, so that a resumed run computes the same bits."""

    number: int
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPart:
    part: int
    rows: Mapping[str, list[Row]]
    """By scorer."""
    left_out: list[int]
    """Indices into the part of the responses without rows."""
    counts: Mapping[str, int]
    """Of those left out or cut, by reason."""
    sequence_tokens: int
    """Tokens of prompts and responses, each response with its prompt."""
    readings: Mapping[str, ModelUsage]
    """What each model read, by charge."""


def untold(n_tokens: int) -> None:
    """For where nobody waits to be told of the tokens of each batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is told; it can be pickled where `prm` is a source and nobody waits for `passed`."""

    prm: ImplicitPRM | PRMSource
    scorers: Mapping[str, str]
    splitter: str | None
    tokens: bool
    too_long: TooLong
    token_budget: int | None
    passed: Callable[[int], None] = untold

    def worker(self) -> Callable[[Sequence[Part]], Iterator[ScoredPart]]:
        """A worker that holds the models."""
        return partial(self._scored, self.prm.load() if isinstance(self.prm, PRMSource) else self.prm)

    def _scored(self, prm: ImplicitPRM, parts: Sequence[Part]) -> Iterator[ScoredPart]:
        for part in parts:
            tally = Tally()
            logps, counts = prm.logprobs(
                part.rollouts, too_long=self.too_long, token_budget=self.token_budget, advance=self.passed,
                tally=tally,
            )  # fmt: skip
            yield ScoredPart(
                part=part.number,
                rows={scorer: list(self._rows(prm, part, logps, scorer)) for scorer in self.scorers},
                left_out=[index for index in range(len(part.rollouts)) if index not in logps],
                counts=counts,
                sequence_tokens=sum(len(item.encoded.ids) for item in logps.values()),
                readings=tally.readings,
            )

    def _rows(self, prm: ImplicitPRM, part: Part, logps: Mapping[int, TokenLogProbs], scorer: str) -> Iterator[Row]:
        for index, item in logps.items():
            rollout = part.rollouts[index]
            try:
                result = prm.read(
                    item, rollout.response, splitter=self.splitter, steps=rollout.extra.get("steps"),
                    reward=self.scorers[scorer],
                )  # fmt: skip
            except SpanError as error:
                raise SpanError(f"{item.encoded.name}: {error}") from error
            yield {**rollout_row(_scored(rollout, scorer, result)), **(_token_columns(result) if self.tokens else {})}


def _scored(rollout: Rollout, scorer: str, result: ResponseScore) -> Rollout:
    spans = [list(span) for span in result.steps]
    columns = {score_kinds.COLUMN: "log_odds", "reward": result.reward, "step_spans": spans}
    carried = {name: value for name, value in rollout.extra.items() if name not in COLUMNS}  # have done their work
    return replace(rollout, scorer=scorer, score=None, step_scores=result.step_rewards, extra={**carried, **columns})


def _token_columns(result: ResponseScore) -> dict[str, Any]:
    return {"token_rewards": list(result.token_rewards), "token_spans": [list(span) for span in result.tokens]}
