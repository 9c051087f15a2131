r"""Expressions that are too dangerous to evaluate, recognised from their text in linear time.

A symbolic engine does not return from `9^{9^{9^9}}`, `1000000!` or a thousand nested braces, or only with all of the
memory. Here sizes are bounded from above before anything is evaluated, each letter taken as 2; the limits are far
beyond any answer of a mathematics problem (the largest of MATH is 2^{4950}, the deepest has 3 brackets).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, log10

DIGITS = 20_000
"""Of a power, a factorial or a number."""
LENGTH = 20_000
"""Characters of an expression."""
DEPTH = 100
"""Nested brackets."""

_TOKEN = re.compile(
    r"(?P<open>\\\{|[{(\[])|(?P<close>\\\}|[})\]])|(?P<number>\d+(?:\.\d+)?)|(?P<power>\^|\*\*(?=\s*-?[\d(]))"
    r"|(?P<choose>\\[dt]?binom(?![a-zA-Z]))|(?P<sum>[-+=<>,;&]|\\\\)"
    r"|\\(?:left|right|[bB]igg?[lr]?|[dt]?frac|sqrt|cdot|times|text|mathrm)(?![a-zA-Z])"
    r"|(?P<letter>\\[a-zA-Z]+|[^\W\d_])|(?P<factorial>!)|\\?.",
    re.DOTALL,
)
_LETTER = log10(2)


def exceeded_limit(text: str, *, length: int = LENGTH, depth: int = DEPTH) -> str | None:
    """Why the expressions in a text, LaTeX or Python-like, must not be evaluated; None if they may be."""
    if len(text) > length:
        return f"has more than {length:,} characters"
    groups = [_Group()]
    largest = 0.0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "open":
            groups.append(_Group())
        elif kind == "close" and len(groups) > 1:
            inner = groups.pop()
            largest = max(largest, inner.add(), groups[-1].put(inner.total))
        elif kind in ("number", "letter"):
            largest = max(largest, groups[-1].put(_logarithm(token[0])))
        elif kind in _MEANING:
            largest = max(largest, _MEANING[kind](groups[-1]))
        if len(groups) > depth + 1:
            return f"has more than {depth} brackets inside each other"
        if largest > DIGITS:
            break
    while groups and largest <= DIGITS:  # groups that were not closed
        inner = groups.pop()
        largest = max(largest, inner.add(), groups[-1].put(inner.total) if groups else 0.0)
    if largest > DIGITS:
        return f"may have more than {DIGITS:,} digits"
    return None


@dataclass(slots=True)
class _Group:
    """Decimal logarithms of bounds inside an open bracket; each method returns the largest bound that it met."""

    total: float = 0.0
    """Sum of the finished summands."""
    term: float = 0.0
    """Product of the finished factors since then; a divisor counts as a factor."""
    last: float | None = None
    """The last atom, which a power or a factorial may follow."""
    bases: list[float] = field(default_factory=list)
    """Bases without their exponent so far."""

    def put(self, atom: float) -> float:
        done = self.finish() if self.last is not None else 0.0
        self.last = max(atom, _LETTER)
        return max(done, self.last)

    def raise_to(self) -> float:
        if self.last is not None:
            self.bases.append(self.last)
            self.last = None
        return 0.0

    def add(self) -> float:
        done = self.finish()
        self.total = max(self.total, self.term) + (_LETTER if self.total else 0.0)
        self.term = 0.0
        return done

    def choose(self) -> float:
        """A binomial coefficient is at most 2 to the power of what comes next."""
        done = self.finish()
        self.bases.append(_LETTER)
        return done

    def factorial(self) -> float:
        """n! is at most n^n."""
        self.last = None if self.last is None else self.last * _number(self.last)
        return self.last or 0.0

    def finish(self) -> float:
        """Multiply the term by the last atom, raised to by its bases."""
        value = self.last or 0.0
        while self.bases:
            value = self.bases.pop() * _number(value)
        self.term += value
        self.last = None
        return value


_MEANING: Mapping[str | None, Callable[[_Group], float]] = {
    "power": _Group.raise_to, "sum": _Group.add, "choose": _Group.choose, "factorial": _Group.factorial,
}  # fmt: skip


def _logarithm(atom: str) -> float:
    if not atom[0].isdecimal():
        return _LETTER
    whole = atom.partition(".")[0].lstrip("0")
    return float(len(whole)) if len(whole) > 15 else log10(max(float(atom), 2.0))


def _number(logarithm: float) -> float:
    return 10**logarithm if logarithm < 300 else inf
