"""Comparison of two answers by math-verify and sympy, which may take long.

A process that must not hang checks `limits.py` first, and calls this with a time limit: see `io/sandbox.py`.
"""

import re
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from freeprm.core.answers.scalars import AnswerComparison, Verdict
from freeprm.core.answers.tokens import ParseError, tokenise
from freeprm.core.answers.units import word_set

_DELIMITED = re.compile(r"(?<!\\)(?:\$|\\[\[(]|\\boxed|\\fbox)")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_APART = 1e-6  # relative difference of two values that no rounding makes
_HALF_READ = re.compile(r"\\(?:frac|sqrt)\s*(?![\s{\[])|\\(?:text|math|op|mbox|over|bar)[a-z]*|\\[dt]ot")
_ENGINE_ONLY = re.compile(r"\\(?:sum|prod|int|lim|begin)(?![a-zA-Z])")
_READ_COMMANDS = word_set("""
    frac sqrt sum prod int lim infty pi * / < > le ge sin cos tan sec csc cot ln log exp abs begin end cup cap to alpha
    beta gamma theta lambda mu phi omega
""")


def is_for_engine(*texts: str) -> bool:
    """Whether answers contain what only math-verify evaluates (sums, integrals, matrices), and it reads all of them.

    It drops unknown symbols, so only symbols that it is known to read are accepted.
    """
    return any(map(_ENGINE_ONLY.search, texts)) and all(map(_is_read_whole, texts))


def _is_read_whole(text: str) -> bool:
    try:
        found = tokenise(text)
    except ParseError:
        return False
    return _HALF_READ.search(text) is None and all(
        token.kind in ("number", "letter", "environment", *"-+*/^_(){}[]|=<>!&", "\\\\")
        or (token.kind == "command" and token.text in _READ_COMMANDS)
        for token in found
    )


def verified(answer: str, right: str, how: AnswerComparison, seconds: int | None) -> Verdict:
    """Whether two answers are equal for math-verify; None with a reason if undecided.

    Expressions with different values at fixed points are not passed to it: it would try to simplify their difference.

    Args:
        answer, right: without wrappers.
        how: see `AnswerComparison`.
        seconds: limit on each call, by an alarm, so in the main thread only; None for no limit.
    """
    from math_verify import verify
    from math_verify.errors import TimeoutException

    limit = seconds if threading.current_thread() is threading.main_thread() else None
    try:
        gold, pred = _parse(right, how.read, limit), _parse(answer, how.read, limit)
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
    except Exception as error:  # any error of sympy on a malformed answer
        return Verdict(None, f"could not be compared ({type(error).__name__})")


@lru_cache(maxsize=4096)
def _parse(text: str, read: tuple[str, ...], limit: int | None) -> list[Any]:
    """Math-verify's readings of an answer: expressions, then the text itself."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    kinds: Mapping[str, Callable[[], Any]] = {"latex": LatexExtractionConfig, "expr": ExprExtractionConfig}
    wanted = [kinds[kind]() for kind in read]
    source = text if _DELIMITED.search(text) else f"${' '.join(text.split())}$"
    found = parse(source, wanted, parsing_timeout=limit, raise_on_error=True)
    if _DECIMAL_COMMA.fullmatch(text):  # `1,22` is read as two numbers so far, but may be one
        found = [*found, *parse(text, wanted, parsing_timeout=limit, raise_on_error=True)]
    return list(found)


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
    except Exception:  # any error of sympy on a malformed answer; math-verify then decides
        return False
    return any(
        abs(ours - theirs) > _APART * max(1.0, abs(ours), abs(theirs))
        for ours, theirs in values
        if ours is not None and theirs is not None
    )


def _value(expression: Any, sign: int) -> complex | None:
    """The value with symbols at their points; None unless it is a finite number below 10^12."""
    points = {symbol: sign * _point(str(symbol)) for symbol in expression.free_symbols}
    value = expression.evalf(20, subs=points)
    return complex(value) if value.is_number and value.is_finite and abs(value) < 10**12 else None


def _point(name: str) -> float:
    """A symbol's absolute value: a fixed number from 1 to 2 for each name."""
    return 1 + int.from_bytes(blake2b(name.encode(), digest_size=6).digest()) / 2**48
