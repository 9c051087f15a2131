"""What math-verify and sympy say of two answers, or of one: the part that may take long.

Whoever calls this in a process that must not hang asks `hazards.py` first, and holds a limit: see `io/limited.py`.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

_DELIMITED = re.compile(r"(?<!\\)(?:\$|\\[\[(]|\\boxed|\\fbox)")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_APART = 1e-6  # relative difference of two values that no rounding makes


class Verdict(NamedTuple):
    """Whether an answer is right."""

    correct: bool | None
    """None where that could not be decided."""
    reason: str | None
    """Why it could not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How answers are read and compared, as far as there is a choice."""

    decimals: int = 6
    """To which two numbers must agree where one of them is a decimal."""
    digits: int = 15
    """To which two expressions are evaluated."""
    read: tuple[Literal["latex", "expr"], ...] = ("latex", "expr")
    """What math-verify looks for in a text: formulas between delimiters, and plain numbers and expressions."""
    strict: bool = True
    """Variables have names, and a tuple is no set; else f(x) is f(y)."""
    relations_as_sets: bool = False
    """`-2 <= x <= 7` is the interval [-2, 7], whichever of the two is the gold answer."""
    unreadable_is_wrong: bool = False
    """What cannot be parsed is not equal, as in math-verify, instead of undecided."""


DEFAULT = Comparison()


def verified(given: str, right: str, how: Comparison, seconds: int | None) -> Verdict:
    """Whether math-verify takes two answers for the same; None with a reason where it cannot say.

    Expressions that differ in value at fixed points are not given to it: it would try to simplify their difference.

    Args:
        given: the answer given, freed of wrappers.
        right: the gold answer, likewise.
        how: settings.
        seconds: limit on each call, by an alarm, so in the main thread only; None for no limit.

    Raises:
        MemoryError: there is not enough memory.
    """
    from math_verify import verify
    from math_verify.errors import TimeoutException

    limit = _alarm(seconds)
    try:
        gold, pred = _parse(right, how.read, limit), _parse(given, how.read, limit)
        for name, readings in (("gold answer", gold), ("answer", pred)):
            if all(isinstance(reading, str) for reading in readings):
                return Verdict(False, None) if how.unreadable_is_wrong else Verdict(None, f"{name} could not be parsed")
        if len(gold) == len(pred) == 2 and how.strict and _surely_different(gold[0], pred[0]):
            return Verdict(False, None)
        same = verify(
            gold,
            pred,
            float_rounding=how.decimals,
            numeric_precision=how.digits,
            strict=how.strict,
            allow_set_relation_comp=how.relations_as_sets,
            timeout_seconds=limit,
            raise_on_error=True,
        )
        return Verdict(same, None)
    except TimeoutException:
        return Verdict(None, f"comparison took longer than {seconds} s")
    except MemoryError:
        raise
    except Exception as error:  # whatever sympy meets in a malformed answer
        return Verdict(None, f"could not be compared ({type(error).__name__})")


@lru_cache(maxsize=4096)
def _parse(text: str, read: tuple[str, ...], limit: int | None) -> list[Any]:
    """What math-verify reads in an answer: expressions, then the text itself."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    kinds: Mapping[str, Callable[[], Any]] = {"latex": LatexExtractionConfig, "expr": ExprExtractionConfig}
    wanted = [kinds[kind]() for kind in read]
    source = text if _DELIMITED.search(text) else f"${' '.join(text.split())}$"
    found = parse(source, wanted, parsing_timeout=limit, raise_on_error=True)
    if _DECIMAL_COMMA.fullmatch(text):  # `1,22` is read as two numbers so far, but may be one
        found = [*found, *parse(text, wanted, parsing_timeout=limit, raise_on_error=True)]
    return list(found)


def _alarm(seconds: int | None) -> int | None:
    return seconds if threading.current_thread() is threading.main_thread() else None


def _surely_different(gold: Any, pred: Any) -> bool:
    """Whether two readings cannot be equal: by their values, or one is a number and the other a range."""
    from sympy import Expr, Float, Interval, Symbol, UnevaluatedExpr
    from sympy import Union as SetUnion

    for one, other in ((gold, pred), (pred, gold)):
        parts = one.args if isinstance(one, SetUnion) else (one,)
        if isinstance(other, Expr) and any(isinstance(part, Interval) for part in parts):
            return True
    if not all(isinstance(item, Expr) and not isinstance(item, Symbol) for item in (gold, pred)):
        return False
    if any(item.has(Float, UnevaluatedExpr) for item in (gold, pred)):
        return False
    try:
        values = [(_value(gold, sign), _value(pred, sign)) for sign in (1, -1)]
    except Exception:  # whatever sympy meets in a malformed answer; math-verify then decides
        return False
    return any(
        abs(ours - theirs) > _APART * max(1.0, abs(ours), abs(theirs))
        for ours, theirs in values
        if ours is not None and theirs is not None
    )


def value_key(text: str, seconds: int | None) -> str | None:
    """A key that equal expressions have in common, None where there is none to be had; see `answers.canonical`."""
    from math_verify.errors import TimeoutException
    from math_verify.utils import timeout

    limit = _alarm(seconds)
    try:
        found = _parse(text, Comparison().read, limit)
        return None if not found or isinstance(found[0], str) else str(timeout(limit)(_key)(found[0]))
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
        value = _value(expression, sign)
        if value is None:
            return str(expression)
        keys.append(number_key(value))
    return " ".join([*keys, *map(str, symbols)])


def _value(expression: Any, sign: int) -> complex | None:
    """With its symbols at their points; None where that is no finite number below 10^12."""
    points = {symbol: sign * _point(str(symbol)) for symbol in expression.free_symbols}
    value = expression.evalf(20, subs=points)
    return complex(value) if value.is_number and value.is_finite and abs(value) < 10**12 else None


def _point(name: str) -> float:
    """Where a symbol is evaluated, with either sign: a fixed number from 1 to 2 for each name."""
    return 1 + int.from_bytes(blake2b(name.encode(), digest_size=6).digest()) / 2**48


def number_key(value: complex) -> str:
    """To 14 digits, so that rounding in the last ones does not tell equal numbers apart."""
    imaginary = f"{value.imag:+.14g}i" if abs(value.imag) > 1e-12 * abs(value) else ""
    return f"{value.real:.14g}{imaginary}"
