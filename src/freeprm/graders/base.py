"""What decides whether an answer is right (`Grader`), how one is found by name, and workers that grade many.

A member of this family is a frozen dataclass whose fields are its options. A user's own is that, any other class
that can be called, or a plain function `(pred, gold) -> True, False, None or Verdict`.

A worker process has a limit on time and memory: what fails, hangs or needs too much costs its own verdict, and says
why. The grading stage gives such workers to an executor.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from freeprm.core.answers import NO_ANSWER, NO_GOLD, Verdict
from freeprm.core.answers.extraction import extract, tidy
from freeprm.errors import ConfigError, PluginError
from freeprm.io.config import build
from freeprm.io.plugins import load, names
from freeprm.io.sandbox import Limits, Pool


class Grader(Protocol):
    """Compares the answer found in a response with the gold answer. It may run in another process."""

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """True, False, or None with a reason; two empty answers are not equal."""
        ...


@runtime_checkable
class QuickGrader(Grader, Protocol):
    """A grader that decides some pairs in linear time: these need no process with limits."""

    def at_once(self, pred: str | None, gold: str | None) -> Verdict | None:
        """The verdict, None where that takes `__call__`."""
        ...


@runtime_checkable
class Warm(Protocol):
    """What is faster once it has been used: called in a process from which the workers are forked."""

    def warm(self) -> None:
        """Load and compute what every call needs, without starting a thread."""
        ...


def grader(name: str, options: Mapping[str, Any] | None = None) -> Grader:
    """The grader of this name with its options.

    Args:
        name: a member of the family, or `package.module:name`.

    Raises:
        PluginError: there is none of that name, or it cannot be called.
        ConfigError: an option that it does not have, or of the wrong type.
    """
    found = load("graders", name)
    if isinstance(found, type) and is_dataclass(found):
        made: Any = build(found, [options or {}])
    elif options:
        raise ConfigError(f"grader {name!r}: has no options, got {', '.join(options)}; only fields of a dataclass are")
    else:
        made = found() if isinstance(found, type) else found
    if not callable(made):
        raise PluginError(
            f"grader {name!r}: is {made!r}; expected something that is called with an answer and the gold"
        )
    return made if isinstance(made, QuickGrader) else Own(judge=made)


def missing(pred: str | None, gold: str | None) -> Verdict | None:
    """The verdict where either answer is missing or empty, None where both are there."""
    if not tidy(gold or ""):
        return Verdict(None, NO_GOLD)
    return None if tidy(pred or "") else Verdict(None, NO_ANSWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A user's own grader: asked where both answers are there, and held to give a verdict."""

    judge: Callable[[str, str], bool | Verdict | None]

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """See `Grader`.

        Raises:
            TypeError: what it gives is no verdict.
        """
        absent = missing(pred, gold)
        if absent is not None:
            return absent
        given = self.judge(pred or "", gold or "")
        if isinstance(given, Verdict):
            return Verdict(given.correct, None) if given.correct is not None else given
        if given is None:
            return Verdict(None, "not decided by the grader")
        if given is not True and given is not False:
            raise TypeError(f"the grader gave {type(given).__name__}; expected True, False, None or a Verdict")
        return Verdict(given, None)


# Workers.

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Sequence[T]], Iterator[tuple[T, R]]]
"""Turns a block into its items, each with its result, in any order."""


class AnswerPair(NamedTuple):
    """What a grader compares."""

    pred: str
    gold: str


class ExtractedAnswer(NamedTuple):
    """What an extractor found in a response."""

    pred: str | None
    reason: str | None
    """Why the search failed: the extractor's error, or the limit that it met."""


def judging(name: str, options: Mapping[str, Any], *, n_workers: int, limits: Limits) -> Work[AnswerPair, Verdict]:
    """What turns pairs into verdicts.

    Args:
        limits: of one pair.
    """
    pool = Pool(
        partial(_judge, name, options), prepare=partial(_prepare, name, options), n_workers=n_workers, limits=limits
    )
    return partial(_judged, pool)


def extracting(names: Sequence[str], *, n_workers: int, limits: Limits) -> Work[str, ExtractedAnswer]:
    """What turns responses into the answers found in them.

    Args:
        limits: of one response.
    """
    return partial(_extracted, Pool(partial(_extract, names), n_workers=n_workers, limits=limits))


def _judged(pool: Pool, pairs: Sequence[AnswerPair]) -> Iterator[tuple[AnswerPair, Verdict]]:
    for index, outcome in pool.run(pairs):
        yield pairs[index], Verdict(None, outcome.failure) if outcome.value is None else outcome.value


def _extracted(pool: Pool, responses: Sequence[str]) -> Iterator[tuple[str, ExtractedAnswer]]:
    for index, outcome in pool.run(responses):
        yield responses[index], ExtractedAnswer(outcome.value, outcome.failure)


def _prepare(name: str, options: Mapping[str, Any]) -> None:
    """What all workers are born with. Not a user's own grader: what that loads may not bear forking."""
    if name in names("graders", installed=False):
        made = grader(name, options)
        if isinstance(made, Warm):
            made.warm()


def _judge(name: str, options: Mapping[str, Any]) -> Callable[[AnswerPair], Verdict]:
    judge = grader(name, options)
    return lambda pair: judge(*pair)


def _extract(names: Sequence[str]) -> Callable[[str], str | None]:
    return partial(extract, extractors=names)
