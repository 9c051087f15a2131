"""Answers compared with the gold answer, and given keys for voting.

Plain numbers and words are decided here, the rest by math-verify. What cannot be found or compared is None with a
reason, never wrong; and two empty answers are not equal.
"""

import re
from fractions import Fraction
from functools import lru_cache

from freeprm.core.constants import constant
from freeprm.core.extraction import DEFAULT_EXTRACTORS as DEFAULT_EXTRACTORS
from freeprm.core.extraction import EXTRACTORS as EXTRACTORS
from freeprm.core.extraction import boxed as boxed
from freeprm.core.extraction import extract as extract
from freeprm.core.extraction import tidy
from freeprm.core.hazards import hazard
from freeprm.core.quantities import number, quantity
from freeprm.core.symbolic import Comparison as Comparison
from freeprm.core.symbolic import Verdict as Verdict
from freeprm.core.symbolic import number_key, value_key, verified

TIMEOUT_SECONDS = 5
"""Limit on one call to math-verify in this process: an alarm signal, in the main thread only. See `io/limited.py`."""
NO_ANSWER = "no answer found"
NO_GOLD = "no gold answer"
_SETTLED, _EQUAL = 12, 40  # decimals in which constants differ that are not equal, and agree that are
_KEY_LENGTH, _KEY_DEPTH = 500, 12  # of a formula that gets a key by its value; the longest of MATH has 159 characters
_KEY_BARS = 8  # in it; the parser's time doubles with each

_CLOCK = re.compile(r"\d{1,2}:\d\d")  # a division by zero to math-verify where it ends in `:00`
# `C`, `(C)`, `(C) 42`, `C. x = 42`, `\textbf{(C)}\ 42`
_CHOICE = re.compile(r"(?:\\text(?:bf)?\{)?\(?(?P<letter>[A-J])(?:\)?\}?|(?:\)|[.:]|\})\}?[\s\\].+)", re.DOTALL)
_INNER_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # all but the space in `1 1/2`
_WORDS = re.compile(r"(?=.*[A-Za-z]{4})[A-Za-z]+(?: [A-Za-z]+)*")

_UNFINISHED = re.compile(r"\\(?:sum|prod|i{0,3}o?int|lim)(?![a-zA-Z])")  # evaluated term by term, perhaps without end


DEFAULT = Comparison()


def equivalent(
    pred: str | None, gold: str | None, *, how: Comparison = DEFAULT, seconds: int | None = TIMEOUT_SECONDS
) -> Verdict:
    """Whether two answers mean the same: as text, as numbers, else as math-verify sees it.

    Args:
        pred: the answer given, LaTeX or not, with or without delimiters.
        gold: the right one. The order matters to math-verify where one of the two is an equation or a set.
        how: settings of the comparison.
        seconds: limit on each call to math-verify, held in the main thread only; None where the caller holds one.

    Returns:
        None with a reason where either is empty, cannot be parsed or is too large to evaluate (`hazards.py`), or where
        the comparison fails or takes too long.
    """
    found = at_once(pred, gold, how=how)
    return found or verified(tidy(pred or ""), tidy(gold or ""), how, seconds)


def at_once(pred: str | None, gold: str | None, *, how: Comparison = DEFAULT) -> Verdict | None:
    """What `equivalent` says where that takes no symbolic engine, in linear time; None where it takes one."""
    given, right = tidy(pred or ""), tidy(gold or "")
    if not right:
        return Verdict(None, NO_GOLD)
    if not given:
        return Verdict(None, NO_ANSWER)
    plain = _plainly_equal(given, right, how)
    if plain is not None:
        return Verdict(plain, None)
    if reason := hazard(right):
        return Verdict(None, f"gold answer {reason}")
    return Verdict(None, f"answer {reason}") if (reason := hazard(given)) else None


@lru_cache(maxsize=65536)
def canonical(answer: str | None) -> str | None:
    """A key for voting: answers with equal keys are equal, and most equal answers have equal keys.

    Numbers go by value, formulas by their value at fixed points, words without case, the rest (unfinished
    sums and integrals, and what is too large to evaluate, among it) by its characters without whitespace. None, which
    does not vote, for an answer that is missing or empty.
    """
    text = tidy(answer or "")
    if not text:
        return None
    value = number(text.removesuffix("%").removesuffix("\\"))
    value = quantity(text) if value is None else value
    if value is not None:
        plain = value.denominator == 1 or not 10**-12 < abs(value) < 10**12
        return str(value) if plain else number_key(float(value))
    if _WORDS.fullmatch(text):
        return text.casefold()
    if choice := _CHOICE.fullmatch(text):
        return choice["letter"]
    formula = re.sub(r"\\(?:left|right)(?![a-z])", "", text)
    hard = (
        _UNFINISHED.search(formula) is not None
        or formula.count("|") > _KEY_BARS
        or hazard(formula, length=_KEY_LENGTH, depth=_KEY_DEPTH) is not None
    )
    return (None if hard else value_key(formula, TIMEOUT_SECONDS)) or _INNER_SPACE.sub("", text)


def _plainly_equal(given: str, right: str, how: Comparison) -> bool | None:
    """Decided from the characters or the numbers alone, None where that cannot be."""
    if given.split() == right.split():
        return True
    ours, theirs = number(given), number(right)
    if ours is None or theirs is None:  # a unit is overlooked, unless both have one
        ours = quantity(given) if ours is None and theirs is not None else ours
        theirs = quantity(right) if theirs is None and ours is not None else theirs
    if ours is not None and theirs is not None:
        exact = "." not in given + right
        return ours == theirs if exact else round(ours, how.decimals) == round(theirs, how.decimals)
    if _WORDS.fullmatch(given) and _WORDS.fullmatch(right):
        return given.casefold() == right.casefold()
    if _CLOCK.fullmatch(given) and _CLOCK.fullmatch(right) and ":00" in given + right:
        return False
    chosen, wanted = _CHOICE.fullmatch(given), _CHOICE.fullmatch(right)
    if chosen and wanted and len(right) <= len("(C)"):
        return chosen["letter"] == wanted["letter"]
    return _constants_equal(given, right, how)


def _constants_equal(given: str, right: str, how: Comparison) -> bool | None:
    """By the values of two constants, None where one is none or the digits do not settle it."""
    ours, theirs = number(given), number(right)
    point = any(value is not None and "." in text for value, text in ((ours, given), (theirs, right)))
    a, b = constant(given) if ours is None else ours, constant(right) if theirs is None else theirs
    if a is None or b is None or how.digits < _SETTLED:
        return None
    exact = isinstance(a, Fraction) and isinstance(b, Fraction)
    a, b = Fraction(a), Fraction(b)
    if point:
        return round(a, how.decimals) == round(b, how.decimals)
    apart = abs(a - b) / max(Fraction(1), abs(a))
    if exact or apart < Fraction(1, 10**_EQUAL):
        return exact is False or apart == 0
    return False if apart > Fraction(1, 10**_SETTLED) else None
