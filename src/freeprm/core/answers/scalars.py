"""Whether two expressions have the same value, and two equations the same solutions.

Numbers are compared exactly, or up to the rounding of a decimal; expressions with letters at several points.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from freeprm.core.answers.relations import difference, infinite
from freeprm.core.answers.tree import Node, holds
from freeprm.core.answers.values import (
    DIGITS,
    Interpretation,
    NoValueError,
    Number,
    agree,
    constant,
    context,
    inexact,
    letters,
    pairs,
)


class Verdict(NamedTuple):
    """Whether an answer is right."""

    correct: bool | None
    """None if undecided."""
    reason: str | None
    """Why it is undecided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerComparison:
    """How answers are read and compared."""

    decimals: int = 6
    """Decimals to which numbers must agree if one of them is a decimal; as many digits for small numbers."""
    digits: int = 15
    """Digits to which math-verify evaluates expressions."""
    read: tuple[Literal["latex", "expr"], ...] = ("latex", "expr")
    """Formulas between delimiters, and plain numbers and expressions."""
    strict: bool = True
    """Variables have names, and a tuple is no set; else f(x) is f(y)."""
    relations_as_sets: bool = True
    """`-2 <= x <= 7` is the interval [-2, 7]."""
    unreadable_is_wrong: bool = False
    """An answer that cannot be parsed is wrong, as in math-verify, instead of undecided."""
    form: bool = False
    """The form of the expression counts, as in the game of 24: `8 \\cdot 3` is not 24."""


TRUE, FALSE = Verdict(True, None), Verdict(False, None)


def undecided(reason: str) -> Verdict:
    """Neither right nor wrong."""
    return Verdict(None, reason)


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Right if all are, wrong if one is."""
    unsure = None
    for verdict in verdicts:
        if verdict.correct is False:
            return FALSE
        unsure = unsure or (verdict if verdict.correct is None else None)
    return unsure or TRUE


def compare_scalars(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    """Compare two expressions; infinity equals only itself, and a percent sign in only one of them is ignored."""
    ends = infinite(one), infinite(other)
    if any(ends):
        if all(ends):
            return Verdict(ends[0] == ends[1], None)
        return FALSE if not letters(one) | letters(other) else undecided("one is infinite")
    verdict = compare_values(one, other, how, Interpretation())
    if verdict.correct is not True and (holds_sign(one) or holds_sign(other)):
        overlooked = compare_values(one, other, how, Interpretation(ignore_signs=True))
        verdict = overlooked if overlooked.correct or verdict.correct is None else verdict
    if verdict.correct is False and (_holds_log(one) or _holds_log(other)):
        for base in (Fraction(10), None):
            if compare_values(one, other, how, Interpretation(log_base=base)).correct:
                return undecided("the base of a logarithm is not told")
    return verdict


def compare_values(one: Node, other: Node, how: AnswerComparison, interpretation: Interpretation) -> Verdict:
    """Compare two expressions under one interpretation."""
    if letters(one) | letters(other):
        n_seen = 0
        for a, b in pairs(one, other, interpretation):
            n_seen += 1
            if not agree(a, b):
                return FALSE
        return TRUE if n_seen > 1 else undecided("no values at enough points")
    try:
        a, b = constant(one, interpretation), constant(other, interpretation)
    except NoValueError as error:
        return undecided(f"no value ({error})")
    return Verdict(_close(a, b, places_of(one), places_of(other), how), None)


def compare_equations(one: Node, other: Node) -> Verdict:
    """Compare two equations, which are equal if one is a multiple of the other."""
    if ratio(one, other) is not None:
        return TRUE
    if letters(one) != letters(other):
        return FALSE
    if any(holds(node, "root", "call") or _divides(node) for node in (one, other)):
        return undecided("they are equations that are no multiples")
    return FALSE


def ratio(one: Node, other: Node) -> Number | None:
    """The factor between two relations, None if neither is a multiple of the other."""
    factor = None
    n_seen = 0
    for a, b in pairs(difference(one), difference(other), Interpretation()):
        if b == 0 or a == 0:
            if a != b:
                return None
            continue
        exact = isinstance(a, Fraction) and isinstance(b, Fraction)
        quotient = a / b if exact else inexact(a) / inexact(b)
        if factor is not None and not agree(factor, quotient):
            return None
        factor = quotient
        n_seen += 1
    return factor if n_seen > 1 else None


class Places(NamedTuple):
    """Decimals in an expression."""

    point: bool
    """Whether it has a decimal."""
    digits: int | None
    """Decimals of a single number, else None."""


def places_of(node: Node) -> Places:
    """The decimals of an expression."""
    if node.kind == "num":
        return Places(node.detail is not None, node.detail)
    if node.kind in ("neg", "group", "percent", "degree"):
        return places_of(node.parts[0])
    return Places(any(places_of(part).point for part in node.parts), None)


def holds_sign(node: Node) -> bool:
    """Whether it has a percent or degree sign."""
    return holds(node, "percent", "degree")


def _close(a: Number, b: Number, ours: Places, theirs: Places, how: AnswerComparison) -> bool:
    """Whether two numbers agree: exactly, or as a decimal agrees with the number that it is rounded or cut from.

    Two decimals with the same number of places are equal only if all digits are.
    """
    if agree(a, b):
        return True
    if not (ours.point or theirs.point) or (ours.digits is not None and ours.digits == theirs.digits):
        return False
    made = context(DIGITS)
    x, y = inexact(a), inexact(b)
    for p, q in ((x.real, y.real), (x.imag, y.imag)):
        apart, size = abs(p - q), max(abs(p), abs(q))
        if apart <= min(1, size) / made.mpf(2 * 10**how.decimals):
            continue
        count = min((places.digits for places in (ours, theirs) if places.digits is not None), default=0)
        rounded = count >= how.decimals and apart < made.mpf(10) ** -count
        if not (rounded and apart <= size * made.mpf(10) ** (1 - how.decimals)):
            return False
    return True


def _holds_log(node: Node) -> bool:
    return (node.kind == "call" and node.name == "log" and len(node.parts) == 1) or any(map(_holds_log, node.parts))


def _divides(node: Node) -> bool:
    """Whether a letter stands below a fraction line."""
    return (node.kind == "div" and bool(letters(node.parts[1]))) or any(map(_divides, node.parts))
