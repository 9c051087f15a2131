"""What every route does with a request: check it against the limits, wait for its scores, say what was scored."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from freeprm.core.rewards import REWARDS, aggregator, check_reward
from freeprm.core.steps import TOKENS, splitter
from freeprm.errors import ConfigError, DataError, NonFiniteError
from freeprm.scorers._scored import Scored
from freeprm.scorers.base import Description, Scores, ScoringOptions
from freeprm.serving.batching import Batch, Batcher
from freeprm.types import Rollout

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RESPONSES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class TimeLimitError(Exception):
    """A request took too long."""


class Measures:
    """What `/metrics` tells; a registry of its own, so that several servers of a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("freeprm_requests", "Requests answered.", ["path", "status"])
        self.seconds = histogram("freeprm_request_seconds", "From request to answer.", ["path"], buckets=_SECONDS)
        self.responses = counter("freeprm_scored_responses", "Responses scored.")
        self.tokens = counter("freeprm_scored_tokens", "Tokens read by the models, shared beginnings once.")
        self.busy = counter("freeprm_scoring_seconds", "Time in which the models worked.")
        self.batch = histogram("freeprm_batch_responses", "Responses scored together.", buckets=_RESPONSES)
        self.shared = histogram("freeprm_batch_requests", "Requests scored together.", buckets=_RESPONSES)
        self.waiting = Gauge(
            "freeprm_waiting_responses", "Responses that wait or are being scored.", registry=self.registry
        )

    def count(self, batch: Batch) -> None:
        """Count a scored batch."""
        self.responses.inc(batch.n_responses)
        self.tokens.inc(batch.tokens)
        self.busy.inc(batch.seconds)
        self.batch.observe(batch.n_responses)
        self.shared.observe(batch.n_requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may ask for."""

    responses: int
    body_bytes: int
    seconds: float


class Service:
    """Everything that routes share."""

    def __init__(
        self, batcher: Batcher, described: Description, *, options: ScoringOptions, limits: Limits,
        measures: Measures, runs: Path | None = None,
    ):  # fmt: skip
        self.batcher, self.limits, self.measures = batcher, limits, measures
        self.runs = runs
        """Folder of runs that the page shows."""
        self._described, self._options = described, options
        self._identity: dict[str, Any] | None = None

    @property
    def about(self) -> Description:
        """The scorer's; before it is loaded, as far as it is known then."""
        return self.batcher.scorer.about if self.batcher.state == "ready" else self._described

    def identity(self) -> dict[str, Any]:
        """What decides the scores, hashes of the weights included; takes a while the first time."""
        if self._identity is None:
            self._identity = self.about.identity()
        return self._identity

    @property
    def rewards(self) -> tuple[str, ...]:
        """Of a log-ratio: what can be asked for, by the models that are loaded."""
        alone = ("without-reference",)
        return alone if self._options.rewards == alone else tuple(REWARDS) if self._options.rewards else ()

    def options(
        self, *, reward: str | None = None, split: str | None = None, tokens: bool = False, too_long: Any = None
    ) -> ScoringOptions:
        """The options of a request, with the server's for those not given.

        Raises:
            ConfigError: an unknown one, or one that this scorer does not have.
        """
        known = self._options
        if reward is not None:
            check_reward(reward)
            if known.rewards and reward not in self.rewards:
                raise ConfigError(f"reward {reward!r}: the reference is not loaded here; there is without-reference")
        if split not in (None, TOKENS):
            splitter(str(split))
        asked = replace(
            known, rewards=(reward,) if reward else known.rewards[:1], splitter=split or known.splitter,
            tokens=tokens, too_long=too_long or known.too_long,
        )  # fmt: skip
        self.about.check(asked)
        return asked

    def aggregator(self, name: str | None) -> str:
        """The name of the aggregator to use: the scorer's own if none is given; a ConfigError if there is no such."""
        chosen = name or self.about.aggregation or "min"
        aggregator(chosen)
        return chosen

    async def score(self, rollouts: Sequence[Rollout], options: ScoringOptions) -> list[Scored | None]:
        """Scores of responses, in order; None of those that are left out.

        Raises:
            DataError: too many responses.
            TimeLimitError: they are not scored in time.
            NonFiniteError: a score is NaN or infinite.
            BusyError, NotReadyError, FreePRMError: see `Batcher.submit`.
        """
        if len(rollouts) > self.limits.responses:
            raise DataError(f"{len(rollouts)} responses; expected {self.limits.responses} or fewer in one request")
        result = self.batcher.submit(rollouts, options)
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(result), self.limits.seconds)
        except TimeoutError as error:
            raise TimeLimitError(f"not scored in {self.limits.seconds:g} s") from error
        for index, scores in enumerate(found):
            if scores is not None and not _are_finite(scores):
                raise NonFiniteError(f"response {index}: the model gives it scores that are not finite; leave it out")
        reward = options.rewards[0] if options.rewards else ""
        return [
            None if scores is None else Scored(rollout=rollout, scores=scores, about=self.about, reward=reward)
            for rollout, scores in zip(rollouts, found, strict=True)
        ]

    async def score_all(self, rollouts: Sequence[Rollout], options: ScoringOptions) -> list[Scored]:
        """The same where each response must have scores.

        Raises:
            DataError: one was left out; names it.
        """
        found = await self.score(rollouts, options)
        for rollout, scored in zip(rollouts, found, strict=True):
            if scored is None:
                raise DataError(f"response {rollout.sample_idx}: {why_left_out(rollout)}")
        return [scored for scored in found if scored is not None]


def _are_finite(scores: Scores) -> bool:
    """Whether its numbers can be written as JSON."""
    whole = [value for value in (scores.score, scores.reward) if value is not None]
    return all(isfinite(value) for value in (*whole, *(scores.step_scores or ())))


def why_left_out(rollout: Rollout) -> str:
    """Why a response has no scores."""
    return "is longer, with its prompt, than the model's context" if rollout.response.strip() else "is empty"


def service_of(request: Request) -> Service:
    """The service, for routes."""
    service: Service = request.app.state.service
    return service
