"""Any scorer by its member's name, and the work of one process with it: parts of the rollouts in, rows out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from freeprm.core import score_kinds
from freeprm.core.flops import ModelShape
from freeprm.core.ledger import SCORER
from freeprm.errors import ConfigError, PluginError
from freeprm.io.plugins import load
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import Row
from freeprm.models.encoding import TooLong
from freeprm.models.loading import DEFAULT_OPTIONS, LoadOptions, load_config, resolve, weights_hash
from freeprm.scorers._tally import ModelUsage, place_of
from freeprm.scorers._working import Part, ScoredPart, untold
from freeprm.scorers.base import ByFolder, KnowsKind, OnDevice, Scorer, Scores, Scoring
from freeprm.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSource:
    """What it takes to load a scorer, in this process or in another."""

    scorer: str
    """A member of the family `scorers`, or `package.module:Name` for anyone's own."""
    model: str
    """A folder or a hub id."""
    reference: str | None = None
    """The second model, where the scorer takes two and it is not where the recipe says."""
    options: LoadOptions = DEFAULT_OPTIONS

    def load(self) -> Scorer:
        """The scorer with its model.

        Raises:
            PluginError: no such scorer, or one that is no recipe for a released model.
            ModelError: not a model of its kind.
        """
        return self._scoring().load(self.model, reference=self.reference, options=self.options)

    def identity(self) -> dict[str, Any]:
        """What decides its scores, as far as it is known without loading it; the dtype as it is asked for.

        Raises:
            ModelError: the model is not there.
        """
        scoring = self._scoring()
        reference = getattr(scoring, "reference", None)
        where = (self.reference or reference) if reference else None
        return {
            "scorer": self.scorer, "dtype": self.options.dtype, "model_sha256": weights_hash(self.folder),
            "reference_sha256": where and weights_hash(resolve(where)),
            "trust_remote_code": self.options.trust_remote_code, **getattr(scoring, "settings", {}),
        }  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the model's files are."""
        return resolve(self.model)

    @property
    def name(self) -> str:
        """What rows call it unless told otherwise."""
        return self._scoring().name

    @property
    def splitter(self) -> str | None:
        """How responses are cut into steps unless told otherwise."""
        return self._scoring().splitter

    def shape(self) -> ModelShape:
        """What decides the cost of a token; with the output head, which some scorers do not use."""
        config = load_config(self.folder, trust_remote_code=self.options.trust_remote_code)
        return ModelShape.of(config.get_text_config())

    def _scoring(self) -> Scoring:
        member = load("scorers", self.scorer)
        scoring = member.of(self.model) if isinstance(member, ByFolder) else member
        if isinstance(scoring, type) or not hasattr(scoring, "load"):
            raise PluginError(
                f"scorers: {self.scorer!r} is {scoring!r}, not a recipe for a released model; a model that `freeprm "
                "train` wrote is given with --prm"
            )
        checked: Scoring = scoring
        return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerJob:
    """What a worker is told; it can be pickled where `scorer` is a source and nobody waits for `passed`."""

    scorer: Scorer | ScorerSource
    name: str | None = None
    """What rows call the scorer; its own name if not given."""
    splitter: str | None = None
    too_long: TooLong = "exclude"
    token_budget: int | None = None
    passed: Callable[[int], None] = untold

    def __post_init__(self) -> None:
        if self.splitter is not None and self.scorer.splitter is None:
            raise ConfigError(f"{self.scorer.name}: scores whole responses, not steps; leave the splitter out")

    @property
    def scorers(self) -> list[str]:
        """The names that rows have; one."""
        return [self.name or self.scorer.name]

    def worker(self) -> Callable[[Sequence[Part]], Iterator[ScoredPart]]:
        """A worker that holds the model."""
        return partial(self._scored, self.scorer.load() if isinstance(self.scorer, ScorerSource) else self.scorer)

    def _scored(self, scorer: Scorer, parts: Sequence[Part]) -> Iterator[ScoredPart]:
        [name] = self.scorers
        kind = {score_kinds.COLUMN: scorer.kind} if isinstance(scorer, KnowsKind) else {}
        for part in parts:
            batches: list[int] = []
            started = time.perf_counter()

            def passed(n_tokens: int, batches: list[int] = batches) -> None:
                batches.append(n_tokens)
                self.passed(n_tokens)

            scores, counts = scorer.score(
                part.rollouts, splitter=self.splitter, too_long=self.too_long, token_budget=self.token_budget,
                advance=passed,
            )  # fmt: skip
            yield ScoredPart(
                part=part.number,
                rows={name: [_row(part.rollouts[index], name, item, kind) for index, item in scores.items()]},
                left_out=[index for index in range(len(part.rollouts)) if index not in scores],
                counts=counts,
                sequence_tokens=sum(item.n_tokens for item in scores.values()),
                readings={SCORER: _reading(scorer, sum(batches), seconds=time.perf_counter() - started)},
            )


def _reading(scorer: Scorer, tokens: int, *, seconds: float) -> ModelUsage:
    place, device = place_of(scorer.device) if isinstance(scorer, OnDevice) else ("", "")
    return ModelUsage(tokens=tokens, seconds=seconds, place=place, device=device)


def _row(rollout: Rollout, name: str, scores: Scores, kind: Mapping[str, str]) -> Row:
    carried = {column: value for column, value in rollout.extra.items() if column != score_kinds.COLUMN}
    spans = {"step_spans": [list(span) for span in scores.steps]} if scores.step_scores is not None else {}
    return rollout_row(
        replace(
            rollout, scorer=name, step_scores=scores.step_scores, score=scores.score, extra={**carried, **kind, **spans}
        )
    )
