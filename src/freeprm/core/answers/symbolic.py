"""What math-verify and sympy say of two answers: the part that may take long.

Whoever calls this in a process that must not hang asks `limits.py` first, and holds a limit: see
`io/sandbox.py`.
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
    """Whether answers hold what math-verify alone evaluates, a sum, an integral or a matrix, and it reads all of them.

    It drops what it does not know, so only such symbols may occur as are known to be read.
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


def verified(given: str, right: str, how: AnswerComparison, seconds: int | None) -> Verdict:
    """Whether math-verify takes two answers for the same; None with a reason where it cannot say.

    Expressions that differ in value at fixed points are not given to it: it would try to simplify their difference.

    Args:
        given: the answer given, freed of wrappers.
        seconds: limit on each call, by an alarm, so in the main thread only; None for no limit.
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


def _value(expression: Any, sign: int) -> complex | None:
    """With its symbols at their points; None where that is no finite number below 10^12."""
    points = {symbol: sign * _point(str(symbol)) for symbol in expression.free_symbols}
    value = expression.evalf(20, subs=points)
    return complex(value) if value.is_number and value.is_finite and abs(value) < 10**12 else None


def _point(name: str) -> float:
    """Where a symbol is evaluated, with either sign: a fixed number from 1 to 2 for each name."""
    return 1 + int.from_bytes(blake2b(name.encode(), digest_size=6).digest()) / 2**48
