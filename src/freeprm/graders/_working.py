"""Graders and extractors at work: a block of answers, each judged in a worker process with a limit on time and memory.

These are the workers that the grading stage gives to an executor. What fails, hangs or needs too much costs its own
verdict, and says why.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from freeprm.core.answers import Verdict
from freeprm.core.extraction import extract
from freeprm.graders.base import Warm, grader
from freeprm.io.plugins import names
from freeprm.io.sandbox import Limits, Pool

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Sequence[T]], Iterator[tuple[T, R]]]
"""Turns a block into its items, each with its result, in any order."""


class Pair(NamedTuple):
    """What a grader compares."""

    pred: str
    gold: str


class Found(NamedTuple):
    """What an extractor found in a response."""

    pred: str | None
    reason: str | None
    """Why the search failed: the extractor's error, or the limit that it met."""


def judging(name: str, options: Mapping[str, Any], *, n_workers: int, limits: Limits) -> Work[Pair, Verdict]:
    """What turns pairs into verdicts.

    Args:
        name: of the grader, see `graders.base.grader`.
        options: the grader's fields.
        n_workers: processes.
        limits: of one pair.
    """
    pool = Pool(
        partial(_judge, name, options), prepare=partial(_prepare, name, options), n_workers=n_workers, limits=limits
    )
    return partial(_judged, pool)


def extracting(names: Sequence[str], *, n_workers: int, limits: Limits) -> Work[str, Found]:
    """What turns responses into the answers found in them.

    Args:
        names: of extractors, see `core.extraction.extractor`.
        n_workers: processes.
        limits: of one response.
    """
    return partial(_extracted, Pool(partial(_extract, names), n_workers=n_workers, limits=limits))


def _judged(pool: Pool, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Verdict]]:
    for index, outcome in pool.run(pairs):
        yield pairs[index], Verdict(None, outcome.failure) if outcome.value is None else outcome.value


def _extracted(pool: Pool, responses: Sequence[str]) -> Iterator[tuple[str, Found]]:
    for index, outcome in pool.run(responses):
        yield responses[index], Found(outcome.value, outcome.failure)


def _prepare(name: str, options: Mapping[str, Any]) -> None:
    """What all workers are born with. Not a user's own grader: what that loads may not bear forking."""
    if name in names("graders", installed=False):
        made = grader(name, options)
        if isinstance(made, Warm):
            made.warm()


def _judge(name: str, options: Mapping[str, Any]) -> Callable[[Pair], Verdict]:
    judge = grader(name, options)
    return lambda pair: judge(*pair)


def _extract(names: Sequence[str]) -> Callable[[str], str | None]:
    return partial(extract, extractors=names)
