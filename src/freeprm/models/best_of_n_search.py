"""Best-of-N by a reward model that scores no further than it must: searches for several problems side by side.

A single problem gives a forward pass few rows, and fewer the better it is searched; many problems at once fill it.
Where the next step of a candidate comes from is its source's affair: `GivenResponses` reads it from whole responses,
the `hf` engine draws it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar

from freeprm.core.early_stopping import BestFirst, BestResponse, ScoredStep, check_aggregator
from freeprm.errors import ConfigError
from freeprm.models.incremental import ReadPrompt, Stepped, StepwiseRewards, WantedStep, shared_prompt

ROWS = 256
"""Candidates that are advanced at a time, over all problems, once each has been begun."""
_Problem = TypeVar("_Problem")
_Candidate = TypeVar("_Candidate")
_Given = TypeVar("_Given", contravariant=True)


class CandidateSource(Protocol[_Given, _Candidate]):
    """Where the candidates for a problem come from, and their next steps."""

    def has_room(self, problem: _Given, others: Sequence[_Given]) -> bool:
        """Whether the memory holds a problem beside those that are open, of which there is one at least."""
        ...

    def open(self, problem: _Given) -> tuple[Sequence[_Candidate], Mapping[int, int]]:
        """The candidates in order, and by n how many of them are among the first n samples."""
        ...

    def advance(self, candidates: Sequence[_Candidate]) -> Sequence[ScoredStep | None]:
        """The next step of each, scored; None for one that cannot be scored, and is never chosen."""
        ...

    def close(self, candidates: Sequence[_Candidate]) -> None:
        """Forget what was kept for the candidates of a problem."""
        ...


class Decided(NamedTuple, Generic[_Problem, _Candidate]):
    """A problem with its candidates as far as they were scored, and what was found."""

    problem: _Problem
    candidates: Sequence[_Candidate]
    found: Mapping[int, BestResponse]
    """By n; none where no candidate can be scored."""


def search(
    problems: Iterable[_Problem],
    *,
    source: CandidateSource[_Problem, _Candidate],
    aggregator: str = "min",
    batch: int = 1,
    rows: int = ROWS,
) -> Iterator[Decided[_Problem, _Candidate]]:
    """The best candidate of each problem for each n, as it is decided.

    Args:
        problems: taken as there is room for them.
        source: gives candidates and their steps.
        aggregator: see `check_aggregator`.
        batch: candidates of a problem that are advanced in a round. 1 scores least.
        rows: see `ROWS`; `rows / batch` problems are open at a time, fewer where the memory does not hold them.

    Raises:
        ConfigError: an aggregator that cannot be stopped early, or a batch or rows below 1.
    """
    check_aggregator(aggregator)
    if min(batch, rows) < 1:
        raise ConfigError(f"batch: is {batch}, of {rows} rows; expected 1 or more")
    waiting = iter(problems)
    following = next(waiting, None)
    is_open: list[_Open[_Problem, _Candidate]] = []
    while following is not None or is_open:
        while following is not None and (
            not is_open
            or (len(is_open) < max(1, rows // batch) and source.has_room(following, [one.problem for one in is_open]))
        ):
            candidates, sizes = source.open(following)
            searches = {n: BestFirst(count, aggregator=aggregator, batch=batch) for n, count in sizes.items()}
            is_open.append(_Open(following, candidates, searches))
            following = next(waiting, None)
        wanted = [(one, index) for one in is_open for index in one.wanted]
        steps = source.advance([one.candidates[index] for one, index in wanted])
        for (one, index), step in zip(wanted, steps, strict=True):
            one.steps[index].append(step)
        for one in tuple(is_open):
            one.go_on()
            if not one.wanted:
                is_open.remove(one)
                source.close(one.candidates)
                yield Decided(one.problem, one.candidates, one.found)


class _Open(Generic[_Problem, _Candidate]):
    """A problem that is being decided: a search for each n, over steps that are scored once for all of them."""

    def __init__(self, problem: _Problem, candidates: Sequence[_Candidate], searches: Mapping[int, BestFirst]):
        self.problem, self.candidates, self._searches = problem, candidates, searches
        self.steps: list[list[ScoredStep | None]] = [[] for _ in candidates]
        """Of each candidate those that were scored, perhaps more than a search has needed so far."""
        self.wanted: list[int] = []
        """Candidates whose next steps must be scored for a search to go on; none once all have found theirs."""
        self.go_on()

    def go_on(self) -> None:
        """Search as far as the steps go that were scored."""
        missing: dict[int, None] = {}
        for search in self._searches.values():
            while following := search.wanted():
                unknown = [index for index in following if search.n_steps(index) == len(self.steps[index])]
                if unknown:
                    missing |= dict.fromkeys(unknown)
                    break
                for index in following:
                    step = self.steps[index][search.n_steps(index)]
                    if step is None:
                        search.drop(index)
                    else:
                        search.take({index: step})
        self.wanted = list(missing)

    @property
    def found(self) -> dict[int, BestResponse]:
        """See `Decided`."""
        found = {n: search.found for n, search in self._searches.items()}
        return {n: one for n, one in found.items() if one is not None}


@dataclass(frozen=True, kw_only=True)
class CandidatePool:
    """The responses to a problem, in order; the best of the first n is wanted, for each of some n."""

    name: str
    """The problem, for the caller."""
    responses: tuple[Stepped, ...]
    """Different ones: an equal one that comes later is never chosen."""
    sizes: Mapping[int, int]
    """By n, how many of these are among the first n."""

    @cached_property
    def n_tokens(self) -> int:
        """Tokens to be kept if everything is read, at most."""
        encoded = [item.encoded for item in self.responses]
        prompts = {item.ids[: item.n_prompt].tobytes(): item.n_prompt for item in encoded}
        return sum(prompts.values()) + sum(item.n_response for item in encoded)


@dataclass(slots=True, eq=False)
class ReadResponse:
    """A response that is given, as far as it was read."""

    prompt: ReadPrompt
    stepped: Stepped
    n_steps: int = 0


@dataclass(frozen=True, slots=True)
class GivenResponses:
    """Steps of whole responses, each scored when it is asked for; a `CandidateSource`."""

    rewards: StepwiseRewards

    def has_room(self, problem: CandidatePool, others: Sequence[CandidatePool]) -> bool:
        """See `CandidateSource`."""
        return sum(one.n_tokens for one in (problem, *others)) <= self.rewards.capacity

    def open(self, problem: CandidatePool) -> tuple[list[ReadResponse], Mapping[int, int]]:
        """See `CandidateSource`."""
        prompts: dict[bytes, ReadPrompt] = {}
        read = [ReadResponse(shared_prompt(prompts, item.encoded), item) for item in problem.responses]
        return read, problem.sizes

    def advance(self, candidates: Sequence[ReadResponse]) -> list[ScoredStep | None]:
        """See `CandidateSource`."""
        scores = self.rewards.rewards([WantedStep(one.prompt, one.stepped, one.n_steps) for one in candidates])
        for one in candidates:
            one.n_steps += 1
        return [
            ScoredStep(score, one.n_steps == len(one.stepped.steps))
            for one, score in zip(candidates, scores, strict=True)
        ]

    def close(self, candidates: Sequence[ReadResponse]) -> None:
        """See `CandidateSource`."""
        for prompt in dict.fromkeys(one.prompt for one in candidates):
            self.rewards.close(prompt)


class Passed(NamedTuple):
    """Steps and tokens of responses."""

    steps: int
    tokens: int
    distinct_tokens: int
    """What responses begin with alike, up to the end of a step, counted once."""


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
