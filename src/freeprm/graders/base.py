"""The Protocol of a grader (`Grader`), how one is found by name, and workers that grade many answers.

A member of this family is a frozen dataclass whose fields are its options. A user's own may also be any callable class
or a function `(pred, gold) -> True, False, None or Verdict`.

A worker process has a limit on time and memory: a call that fails, hangs or needs too much costs only its own verdict,
which says why. The grading stage passes such workers to an executor.
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
    """Compares an extracted answer with the gold answer. It may run in another process."""

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """True, False, or None with a reason; two empty answers are not equal."""
        ...


@runtime_checkable
class QuickGrader(Grader, Protocol):
    """A grader that decides some pairs in linear time, without a process with limits."""

    def at_once(self, pred: str | None, gold: str | None) -> Verdict | None:
        """The verdict, or None if it takes `__call__`."""
        ...


@runtime_checkable
class Warm(Protocol):
    """A grader to warm up in the process from which workers are forked."""

    def warm(self) -> None:
        """Load and compute what every call needs, without starting a thread."""
        ...


def grader(name: str, options: Mapping[str, Any] | None = None) -> Grader:
    """The grader of this name, a member of the family or `package.module:name`, with its options.

    Raises:
        PluginError: there is none of that name, or it cannot be called.
        ConfigError: an unknown option, or one of the wrong type.
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
    """The verdict if either answer is missing or empty, else None."""
    if not tidy(gold or ""):
        return Verdict(None, NO_GOLD)
    return None if tidy(pred or "") else Verdict(None, NO_ANSWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A user's own grader: called if both answers are there, with its result checked."""

    judge: Callable[[str, str], bool | Verdict | None]

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """See `Grader`; a TypeError if the result is no verdict."""
        absent = missing(pred, gold)
        if absent is not None:
            return absent
        result = self.judge(pred or "", gold or "")
        if isinstance(result, Verdict):
            return Verdict(result.correct, None) if result.correct is not None else result
        if result is None:
            return Verdict(None, "not decided by the grader")
        if result is not True and result is not False:
            raise TypeError(f"the grader gave {type(result).__name__}; expected True, False, None or a Verdict")
        return Verdict(result, None)


# Workers.

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Sequence[T]], Iterator[tuple[T, R]]]
"""A block -> its items with their results, in any order."""


class AnswerPair(NamedTuple):
    """Input of a grader."""

    pred: str
    gold: str


class ExtractedAnswer(NamedTuple):
    """Output of an extractor."""

    pred: str | None
    reason: str | None
    """Why it failed: its error, or the exceeded limit."""


def judging(name: str, options: Mapping[str, Any], *, n_workers: int, limits: Limits) -> Work[AnswerPair, Verdict]:
    """A worker that turns pairs into verdicts; `limits` are of one pair."""
    pool = Pool(
        partial(_judge, name, options), prepare=partial(_prepare, name, options), n_workers=n_workers, limits=limits
    )
    return partial(_judged, pool)


def extracting(names: Sequence[str], *, n_workers: int, limits: Limits) -> Work[str, ExtractedAnswer]:
    """A worker that turns responses into answers; `limits` are of one response."""
    return partial(_extracted, Pool(partial(_extract, names), n_workers=n_workers, limits=limits))


def _judged(pool: Pool, pairs: Sequence[AnswerPair]) -> Iterator[tuple[AnswerPair, Verdict]]:
    for index, outcome in pool.run(pairs):
        yield pairs[index], Verdict(None, outcome.failure) if outcome.value is None else outcome.value


def _extracted(pool: Pool, responses: Sequence[str]) -> Iterator[tuple[str, ExtractedAnswer]]:
    for index, outcome in pool.run(responses):
        yield responses[index], ExtractedAnswer(outcome.value, outcome.failure)


def _prepare(name: str, options: Mapping[str, Any]) -> None:
    """Warm up before forking; but not a user's own grader, which may load what cannot be forked."""
    if name in names("graders", installed=False):
        made = grader(name, options)
        if isinstance(made, Warm):
            made.warm()


def _judge(name: str, options: Mapping[str, Any]) -> Callable[[AnswerPair], Verdict]:
    judge = grader(name, options)
    return lambda pair: judge(*pair)


def _extract(names: Sequence[str]) -> Callable[[str], str | None]:
    return partial(extract, extractors=names)
