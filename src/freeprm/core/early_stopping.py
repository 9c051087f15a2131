"""Best-of-n without scoring every response to its end: best-first search over step scores.

The running score of a response, over the steps scored so far, is an upper bound of its score if a further step can only
lower it: the minimum, and the product of probabilities. So a response that has fallen behind a finished one cannot be
chosen any more, and the rest of it need not be scored.

Proof. Let i be finished and first in the order of running scores, ties by index. Any other j has score_j <= running_j,
and either running_j < score_i, or running_j = score_i and j > i. Hence score_j < score_i, or they are equal and j > i:
`voting.best_of_n` chooses i as well. With one response a round, a response is scored further only while it is first,
so no further than the proof needs.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite
from typing import NamedTuple

from freeprm.core.rewards import aggregator
from freeprm.errors import ConfigError, DataError, NonFiniteError


class ScoredStep(NamedTuple):
    """The next step of a response, scored."""

    score: float
    is_last: bool


class BestResponse(NamedTuple):
    """The first response with the highest score."""

    best: int
    score: float
    running: tuple[float, ...]
    """(N,) score over the steps scored: an upper bound, exact for a finished response."""
    n_steps: tuple[int, ...]
    """(N,) steps scored of each response."""


def _product(running: float, score: float) -> float:
    if not 0 <= score <= 1:
        raise DataError(
            f"prod: a step has score {score:g}; expected probabilities in [0, 1], without which a product can rise"
        )
    return running * score


_RUNNING: Mapping[str, tuple[float, Callable[[float, float], float]]] = {"min": (inf, min), "prod": (1.0, _product)}
"""Initial running score, and its update by a step."""
_CAN_RISE: Mapping[str, str] = {
    "max": "a later step can have a higher score",
    "sum": "a later step can add to it",
    "mean": "a later step above the mean raises it",
    "last": "the last step alone decides it",
}


def check_aggregator(name: str) -> str:
    """The name; a ConfigError if there is no such aggregator, or its running score is no upper bound."""
    aggregator(name)
    if name not in _RUNNING:
        raise ConfigError(
            f"aggregator {name!r} cannot be stopped early: {_CAN_RISE[name]}, so nothing is known of a response before "
            f"its end; choose {' or '.join(_RUNNING)}, or score all responses"
        )
    return name


class BestFirst:
    """The search among N responses: alternate `wanted` and `take` until one is `found`.

    Args:
        count: N, at least 1.
        aggregator: see `check_aggregator`.
        batch: responses to advance in a round. The first step of every response is always needed, so the first round
            wants all of them.

    Raises:
        ConfigError: an aggregator that cannot be stopped early, or a batch below 1.
        DataError: there is no response.
    """

    def __init__(self, count: int, *, aggregator: str = "min", batch: int = 1):
        start, self._next = _RUNNING[check_aggregator(aggregator)]
        if batch < 1:
            raise ConfigError(f"batch: is {batch}; expected 1 or more responses a round")
        if count < 1:
            raise DataError("no responses to choose from; expected at least one")
        self._batch = batch
        self._running, self._n_steps, self._is_finished = [start] * count, [0] * count, [False] * count
        self._dropped: set[int] = set()

    def wanted(self) -> list[int]:
        """The responses whose next steps should be scored, most promising first; none once one is found."""
        order = self._order()
        unseen = sorted(index for index in order if self._n_steps[index] == 0)
        if unseen:
            return unseen
        ahead = order[: next((rank for rank, index in enumerate(order) if self._is_finished[index]), len(order))]
        return ahead[: self._batch]

    def take(self, steps: Mapping[int, ScoredStep]) -> None:
        """Note the next step of some responses; a NonFiniteError if a score is NaN or infinite."""
        for index, step in steps.items():
            if self._is_finished[index]:
                raise DataError(f"response {index} has a step after its last one")
            if not isfinite(step.score):
                raise NonFiniteError(
                    f"response {index}, step {self._n_steps[index]} has score {step.score}; expected a finite one"
                )
            self._running[index] = self._next(self._running[index], step.score)
            self._n_steps[index] += 1
            self._is_finished[index] = step.is_last

    def drop(self, index: int) -> None:
        """Exclude a response that cannot be scored."""
        self._dropped.add(index)

    def n_steps(self, index: int) -> int:
        """Steps of a response noted so far."""
        return self._n_steps[index]

    @property
    def found(self) -> BestResponse | None:
        """The chosen response; None while undecided, or if all were dropped."""
        order = self._order()
        if not order or not self._is_finished[order[0]] or any(self._n_steps[index] == 0 for index in order):
            return None
        best = order[0]
        return BestResponse(best, self._running[best], tuple(self._running), tuple(self._n_steps))

    def _order(self) -> list[int]:
        left = set(range(len(self._running))) - self._dropped
        return sorted(left, key=lambda index: (-self._running[index], index))


def best_first(
    count: int, advance: Callable[[Sequence[int]], Sequence[ScoredStep]], *, aggregator: str = "min", batch: int = 1
) -> BestResponse:
    """The choice of `best_of_n` by all step scores, found with as few of them as possible.

    Args:
        count: responses.
        advance: indices of responses -> the next step of each.
        aggregator, batch: see `BestFirst`.
    """
    search = BestFirst(count, aggregator=aggregator, batch=batch)
    while (found := search.found) is None:
        wanted = search.wanted()
        search.take(dict(zip(wanted, advance(wanted), strict=True)))
    return found
