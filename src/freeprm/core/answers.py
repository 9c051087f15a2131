"""Final answers: found in a response, compared with the gold answer, and given keys for voting.

math-verify decides what plain numbers and words do not. An answer that cannot be found or compared is
None with a reason, never wrong; and two empty answers are not equal.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from hashlib import blake2b
from heapq import nlargest
from typing import Any, NamedTuple

from freeprm.core.quantities import number, quantity
from freeprm.core.steps import sentences
from freeprm.errors import ConfigError

TIMEOUT_SECONDS = 5
"""Limit on one call to math-verify. It is an alarm signal, so it holds in the main thread only."""
_DECIMALS = 6  # to which two decimal numbers must agree, as in math-verify
_BOXES = 8  # looked into, from the last, for one that is not empty

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<open>\{)|(?P<bare>-?\d[^\s{}$\\]*))|\\.|[{}]", re.DOTALL)
_MARKER = re.compile(
    r"\banswer(?:\s+(?:to|for|of)\b[^.\n]{0,100}?)?\s+is\b\s*[:：]?"  # The final answer is X
    r"|\banswer[*_ ]*[:：]"  # Answer: X
    r"|^\#{4}\s*(?=[-+$€£\\.\d(])(?!\d+[.)]\s)"  # #### X, where that is no heading
    r"|^(?-i:A):",  # A: X
    re.IGNORECASE | re.MULTILINE,
)
_AFTER_MARKER = re.compile(r"[\s*_]*(?P<text>\$\$.+?\$\$|\\\[.+?\\\]|[^\n]*)", re.DOTALL)
_FULL_STOP = re.compile(r"(?<!\\right)(?<!\\left)[.。]$")
_WRAPPED = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\$(?P<b>(?:\\\$|[^$])+)\$|\\\((?P<c>(?:(?!\\[()]).)+)\\\)|\\\[(?P<d>(?:(?!\\[\[\]]).)+)\\\]"
    r"|\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{(?P<e>[^{}\\]*)\}",
    re.DOTALL,
)
_DELIMITED = re.compile(r"(?<!\\)(?:\$|\\[\[(]|\\boxed|\\fbox)")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_CLOCK = re.compile(r"\d{1,2}:\d\d")  # a division by zero to math-verify where it ends in `:00`
# `C`, `(C)`, `(C) 42`, `C. x = 42`, `\textbf{(C)}\ 42`
_CHOICE = re.compile(r"(?:\\text(?:bf)?\{)?\(?(?P<letter>[A-J])(?:\)?\}?|(?:\)|[.:]|\})\}?[\s\\].+)", re.DOTALL)
_INNER_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # all but the space in `1 1/2`
_WORDS = re.compile(r"(?=.*[A-Za-z]{4})[A-Za-z]+(?: [A-Za-z]+)*")


class Verdict(NamedTuple):
    """Whether an answer is right."""

    correct: bool | None
    """None where that could not be decided."""
    reason: str | None
    """Why it could not."""


def boxed(response: str) -> str | None:
    r"""The last `\boxed{}` or `\fbox{}` that holds something; braces nest. Takes linear time."""
    boxes: list[tuple[int, int]] = []
    opened: list[int | None] = []  # start of the content for a box, None for other braces
    for found in _BRACES.finditer(response):
        if found["bare"]:
            boxes.append(found.span("bare"))
        elif found["open"] or found.group() == "{":
            opened.append(found.end() if found["open"] else None)
        elif found.group() == "}" and opened and (start := opened.pop()) is not None:
            boxes.append((start, found.start()))
    last_first = nlargest(_BOXES, boxes)
    return next((answer for start, stop in last_first if (answer := _tidy(response[start:stop]))), None)


def marker(response: str) -> str | None:
    """What the last `The answer is X`, `Answer: X`, `A: X` or `#### X` says: the rest of the sentence or formula."""
    for found in reversed(list(_MARKER.finditer(response))):
        behind = _AFTER_MARKER.match(response, found.end())
        text = behind["text"].strip() if behind else ""
        sentence = "is " + text  # so that `5.` in front is not taken for the number of a line
        if answer := _tidy(text[: sentences(sentence)[0].stop - 3]):
            return answer
    return None


def last_number(response: str) -> str | None:
    """The last number in the text, for models that end without ceremony. Not asked for by default."""
    found = re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", response)
    return found[-1] if found else None


EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {"boxed": boxed, "marker": marker, "last_number": last_number}
"""Ways to find the final answer; a new one is one function here."""
DEFAULT_EXTRACTORS = ("boxed", "marker")


def extract(response: str, extractors: Sequence[str] = DEFAULT_EXTRACTORS) -> str | None:
    r"""The final answer of a response: the first extractor that finds one decides.

    So a `\boxed{}` wins over a marker, wherever they stand, and the last of each kind over those before it.
    Wrappers (`$...$`, `\(...\)`, `\text{}`) and a full stop are taken off.

    Raises:
        ConfigError: no such extractor.
    """
    for name in extractors:
        if name not in EXTRACTORS:
            close = get_close_matches(name, EXTRACTORS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"extractor {name!r}: expected one of {', '.join(EXTRACTORS)}.{hint}")
        if (answer := EXTRACTORS[name](response)) is not None:
            return answer
    return None


def equivalent(pred: str | None, gold: str | None) -> Verdict:
    """Whether two answers mean the same: as text, as numbers, else as math-verify sees it.

    Args:
        pred: the answer given, LaTeX or not, with or without delimiters.
        gold: the right one. The order matters to math-verify where one of the two is an equation or a set.

    Returns:
        None with a reason where either is empty or cannot be parsed, or the comparison fails or takes
        longer than `TIMEOUT_SECONDS`.
    """
    given, right = _tidy(pred or ""), _tidy(gold or "")
    if not right:
        return Verdict(None, "no gold answer")
    if not given:
        return Verdict(None, "no answer found")
    plain = _plainly_equal(given, right)
    return _verified(given, right) if plain is None else Verdict(plain, None)


@lru_cache(maxsize=65536)
def canonical(answer: str | None) -> str | None:
    """A key for voting: answers with equal keys are equal, and most equal answers have equal keys.

    Numbers go by value, formulas by their value at fixed points, words without case, the rest by its
    characters without whitespace. None, which does not vote, for an answer that is missing or empty.
    """
    text = _tidy(answer or "")
    if not text:
        return None
    value = number(text.removesuffix("%").removesuffix("\\"))
    value = quantity(text) if value is None else value
    if value is not None:
        plain = value.denominator == 1 or not 10**-12 < abs(value) < 10**12
        return str(value) if plain else _number_key(float(value))
    if _WORDS.fullmatch(text):
        return text.casefold()
    if choice := _CHOICE.fullmatch(text):
        return choice["letter"]
    return _parsed_key(re.sub(r"\\(?:left|right)(?![a-z])", "", text)) or _INNER_SPACE.sub("", text)


def _tidy(text: str) -> str:
    """The answer without what merely wraps it."""
    while True:
        before, text = text, _FULL_STOP.sub("", text.strip()).strip("*`").strip()
        if found := _WRAPPED.fullmatch(text):
            text = found[found.lastgroup or 0]
        elif text.startswith(("\\boxed", "\\fbox")) and (found := _BRACES.match(text)) and found["open"]:
            inside = text[found.end() : -1]
            text = inside if text.endswith("}") and _balanced(inside) else text
        if text == before:
            return text if text.strip("$\\()[]{}:") else ""


def _balanced(text: str) -> bool:
    depth = 0
    for found in _BRACES.finditer(text):
        depth += found.group().endswith("{") and found.group() != "\\{"
        depth -= found.group() == "}"
        if depth < 0:
            return False
    return depth == 0


def _plainly_equal(given: str, right: str) -> bool | None:
    """Decided from the characters or the numbers alone, None where that cannot be."""
    if given.split() == right.split():
        return True
    ours, theirs = number(given), number(right)
    if ours is None or theirs is None:  # a unit is overlooked, unless both have one
        ours = quantity(given) if ours is None and theirs is not None else ours
        theirs = quantity(right) if theirs is None and ours is not None else theirs
    if ours is not None and theirs is not None:
        exact = "." not in given + right
        return ours == theirs if exact else round(ours, _DECIMALS) == round(theirs, _DECIMALS)
    if _WORDS.fullmatch(given) and _WORDS.fullmatch(right):
        return given.casefold() == right.casefold()
    if _CLOCK.fullmatch(given) and _CLOCK.fullmatch(right) and ":00" in given + right:
        return False
    chosen, wanted = _CHOICE.fullmatch(given), _CHOICE.fullmatch(right)
    if chosen and wanted and len(right) <= len("(C)"):
        return chosen["letter"] == wanted["letter"]
    return None


def _verified(given: str, right: str) -> Verdict:
    from math_verify import verify
    from math_verify.errors import TimeoutException

    try:
        gold, pred = _parse(right), _parse(given)
        if all(isinstance(reading, str) for reading in gold):
            return Verdict(None, "gold answer could not be parsed")
        if all(isinstance(reading, str) for reading in pred):
            return Verdict(None, "answer could not be parsed")
        return Verdict(verify(gold, pred, timeout_seconds=_timeout(), raise_on_error=True), None)
    except TimeoutException:
        return Verdict(None, f"comparison took longer than {TIMEOUT_SECONDS} s")
    except Exception as error:  # whatever sympy meets in a malformed answer
        return Verdict(None, f"could not be compared ({type(error).__name__})")


def _parse(text: str) -> list[Any]:
    """What math-verify reads in an answer: expressions, then the text itself."""
    from math_verify import parse

    source = text if _DELIMITED.search(text) else f"${' '.join(text.split())}$"
    found = parse(source, parsing_timeout=_timeout(), raise_on_error=True)
    if _DECIMAL_COMMA.fullmatch(text):  # `1,22` is read as two numbers so far, but may be one
        found = [*found, *parse(text, parsing_timeout=_timeout(), raise_on_error=True)]
    return list(found)


def _timeout() -> int | None:
    return TIMEOUT_SECONDS if threading.current_thread() is threading.main_thread() else None


def _parsed_key(text: str) -> str | None:
    from math_verify.errors import TimeoutException
    from math_verify.utils import timeout

    try:
        found = _parse(text)
        return None if not found or isinstance(found[0], str) else str(timeout(_timeout())(_key)(found[0]))
    except (Exception, TimeoutException):  # not decided is no harm here: the text itself is the key
        return None


def _key(expression: Any) -> str:
    """Equal for equal expressions whatever their form; parts of sets, tuples and the like one by one."""
    from sympy import Eq, Expr, FiniteSet, MatrixBase

    if isinstance(expression, Eq) and (expression.lhs.is_Symbol or not expression.free_symbols):
        return _key(expression.rhs)
    if isinstance(expression, MatrixBase):
        return f"Matrix{expression.shape}({','.join(_key(part) for part in expression.flat())})"
    if not isinstance(expression, Expr):
        parts = [_key(part) for part in expression.args] or [str(expression)]
        return f"{type(expression).__name__}({','.join(sorted(parts) if isinstance(expression, FiniteSet) else parts)})"
    symbols = sorted(expression.free_symbols, key=str)
    keys = []
    for sign in (1, -1) if symbols else (1,):
        value = expression.evalf(20, subs={symbol: sign * _point(str(symbol)) for symbol in symbols})
        if not (value.is_number and value.is_finite) or abs(value) >= 10**12:
            return str(expression)
        keys.append(_number_key(complex(value)))
    return " ".join([*keys, *map(str, symbols)])


def _point(name: str) -> float:
    """Where a symbol is evaluated, with either sign: a fixed number from 1 to 2 for each name."""
    return 1 + int.from_bytes(blake2b(name.encode(), digest_size=6).digest()) / 2**48


def _number_key(value: complex) -> str:
    imaginary = f"{value.imag:+.14g}i" if abs(value.imag) > 1e-12 * abs(value) else ""
    return f"{value.real:.14g}{imaginary}"
