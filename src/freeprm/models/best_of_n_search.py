"""Best-of-n by a reward model that reads no further than it must: searches for several problems side by side.

A single problem gives a forward pass few rows, and fewer the better it is searched; many problems at once fill it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freeprm.core.early_stopping import BestFirst, Found, Step, check_aggregator
from freeprm.errors import ConfigError
from freeprm.models.incremental import ReadPrompt, Stepped, StepwiseRewards

ROWS = 256
"""Responses that are advanced at a time, over all problems, once each has been begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The responses to a problem, in order; the best of the first n is wanted, for each of some n."""

    name: str
    """The problem, for the caller."""
    responses: tuple[Stepped, ...]
    """Different ones: an equal one that comes later is never chosen."""
    sizes: Mapping[int, int]
    """By n, how many of these are among the first n."""


class Passed(NamedTuple):
    """Steps and tokens of responses."""

    steps: int
    tokens: int
    distinct_tokens: int
    """What responses begin with alike, up to the end of a step, counted once."""


def search(
    contests: Iterable[Contest], *, rewards: StepwiseRewards, aggregator: str = "min", batch: int = 1, rows: int = ROWS
) -> Iterator[tuple[Contest, Mapping[int, Found]]]:
    """Each contest with what was found for each n, as it is decided.

    Args:
        contests: taken as there is room for them.
        rewards: gives step rewards.
        aggregator: see `check_aggregator`.
        batch: responses of a problem that are advanced in a round. 1 reads least.
        rows: see `ROWS`; `rows / batch` problems are open at a time, fewer where their tokens would not fit the memory.

    Raises:
        ConfigError: an aggregator that cannot be stopped early, or a batch or rows below 1.
    """
    check_aggregator(aggregator)
    if min(batch, rows) < 1:
        raise ConfigError(f"batch: is {batch}, of {rows} rows; expected 1 or more")
    waiting = iter(contests)
    following = next(waiting, None)
    is_open: list[_Open] = []
    while following or is_open:
        while following and _has_room(following, is_open, rewards.capacity, max(1, rows // batch)):
            is_open.append(_Open(following, aggregator, batch))
            following = next(waiting, None)
        wanted = [(one, index) for one in is_open for index in one.wanted()]
        scores = rewards.rewards([one.next_step(index) for one, index in wanted])
        for (one, index), score in zip(wanted, scores, strict=True):
            one.take(index, score)
        decided = [(one, found) for one in is_open if (found := one.found()) is not None]
        is_open = [one for one in is_open if one.found() is None]
        for one, found in decided:
            for prompt in one.prompts.values():
                rewards.close(prompt)
            yield one.contest, found


def passed(responses: Sequence[Stepped], n_steps: Sequence[int]) -> Passed:
    """What the first so many steps of each response hold."""
    lengths: dict[bytes, int] = {}
    tokens = 0
    for response, count in zip(responses, n_steps, strict=True):
        for step in range(count):
            start, stop = response.steps[step]
            tokens += stop - start
            lengths[response.prefix(step)] = stop - start
    return Passed(sum(n_steps), tokens, sum(lengths.values()))


class _Open:
    """A contest that is being decided: a search for each n, over steps that are scored once for all of them."""

    def __init__(self, contest: Contest, aggregator: str, batch: int):
        self.contest = contest
        self.prompts: dict[bytes, ReadPrompt] = {}  # one, but where a token straddles the boundary to the response
        self._of = [self.prompts.setdefault(_head(item), ReadPrompt(item.encoded)) for item in contest.responses]
        self._searches = {n: BestFirst(count, aggregator=aggregator, batch=batch) for n, count in contest.sizes.items()}
        self._scores: list[list[float]] = [[] for _ in contest.responses]
        self.n_tokens = _size(contest)

    def wanted(self) -> list[int]:
        """Responses whose next steps must be scored for a search to go on; none once all have found theirs."""
        missing: dict[int, None] = {}
        for search in self._searches.values():
            while search.found is None:
                following = {index: search.n_steps(index) for index in search.wanted()}
                unknown = [index for index, step in following.items() if step == len(self._scores[index])]
                if unknown:
                    missing |= dict.fromkeys(unknown)
                    break
                search.take({index: self._step(index, step) for index, step in following.items()})
        return list(missing)

    def next_step(self, index: int) -> tuple[ReadPrompt, Stepped, int]:
        """As `StepwiseRewards.rewards` takes it."""
        return self._of[index], self.contest.responses[index], len(self._scores[index])

    def found(self) -> dict[int, Found] | None:
        """For each n; None while one is open."""
        found = {n: search.found for n, search in self._searches.items()}
        decided = {n: one for n, one in found.items() if one is not None}
        return decided if len(decided) == len(found) else None

    def take(self, index: int, score: float) -> None:
        """Note the score of a response's next step."""
        self._scores[index].append(score)

    def _step(self, index: int, step: int) -> Step:
        return Step(self._scores[index][step], step + 1 == len(self.contest.responses[index].steps))


def _has_room(contest: Contest, is_open: Sequence[_Open], capacity: int, most: int) -> bool:
    """The first contest always has."""
    return not is_open or (len(is_open) < most and sum(one.n_tokens for one in is_open) + _size(contest) <= capacity)


def _size(contest: Contest) -> int:
    """Tokens to be kept if everything is read, at most."""
    prompts = {_head(item): item.encoded.n_prompt for item in contest.responses}
    return sum(prompts.values()) + sum(item.encoded.n_response for item in contest.responses)


def _head(item: Stepped) -> bytes:
    return item.encoded.ids[: item.encoded.n_prompt].tobytes()
