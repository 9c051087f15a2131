"""What decides whether an answer is right (`Grader`), and how one is found by name.

A member of this family is a frozen dataclass whose fields are its options. A user's own is that, any other class
that can be called, or a plain function `(pred, gold) -> True, False, None or Verdict`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol, runtime_checkable

from freeprm.core.answers import NO_ANSWER, NO_GOLD, Verdict
from freeprm.core.extraction import tidy
from freeprm.errors import ConfigError, PluginError
from freeprm.io.config import build
from freeprm.io.plugins import load


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
        options: fields of its dataclass.

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
