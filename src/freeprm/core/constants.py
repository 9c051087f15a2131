r"""The value of a constant that LaTeX writes: `\frac{3\sqrt{2}}{4}`, `2\pi - 1`, `5 \cdot 10^{-3}`.

Rational ones exactly, others to `PRECISION` digits. It is a small language on purpose: what is not surely a constant,
or could be read in two ways (`2\frac{1}{3}`), has no value here and is left to a real parser.
"""

import re
from dataclasses import dataclass
from decimal import Context, Decimal, DecimalException
from fractions import Fraction

from freeprm.core.hazards import hazard

PRECISION = 50
Value = Fraction | Decimal

_TOKEN = re.compile(
    r"(?:\s|\\[!,;: ]|\\(?:left|right)(?![a-zA-Z]))*"
    r"(?P<token>\d+(?:\.\d+)?|\.\d+|\\[dt]?frac(?![a-zA-Z])|\\sqrt(?![a-zA-Z])|\\pi(?![a-zA-Z])"
    r"|\\(?:cdot|times)(?![a-zA-Z])|[-+*/^(){}\[\]])",
    re.ASCII,
)
_CONTEXT = Context(prec=PRECISION)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
_LONGEST = 200  # characters
_POWER = 10_000  # the largest exponent


def constant(text: str) -> Value | None:
    """The value, None where the text is not wholly a constant of this language (or has none, as 1/0)."""
    if len(text) > _LONGEST or hazard(text):
        return None
    tokens, end = [], 0
    while found := _TOKEN.match(text, end):
        tokens.append(found["token"])
        end = found.end()
    if not tokens or text[end:].strip():
        return None
    try:
        reader = _Reader(tokens)
        value = reader.sum()
        return value if reader.at is None else None
    except (_NoConstantError, ZeroDivisionError, DecimalException, OverflowError, RecursionError):
        return None


def _decimal(value: Value) -> Decimal:
    """The value to `PRECISION` digits."""
    if isinstance(value, Decimal):
        return value
    return _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))


class _NoConstantError(Exception):
    """Not in the language."""


@dataclass
class _Reader:
    tokens: list[str]
    position: int = 0

    @property
    def at(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self, *expected: str) -> str:
        token = self.at
        if token is None or (expected and token not in expected):
            raise _NoConstantError
        self.position += 1
        return token

    def sum(self) -> Value:
        sign = self.take() if self.at in ("-", "+") else "+"
        value = _negative(self.product()) if sign == "-" else self.product()
        while self.at in ("-", "+"):
            value = _add(value, _negative(self.product()) if self.take() == "-" else self.product())
        return value

    def product(self) -> Value:
        value = self.power()
        while (token := self.at) is not None:
            if token in ("*", "\\cdot", "\\times"):
                self.take()
                value = _multiply(value, self.power())
            elif token == "/":
                self.take()
                value = _divide(value, self.power())
            elif token in ("\\sqrt", "\\pi", "("):
                value = _multiply(value, self.power())
            else:
                break
        return value

    def power(self) -> Value:
        base = self.atom()
        if self.at != "^":
            return base
        self.take("^")
        exponent = self.group() if self.at == "{" else self.digit()
        if self.at == "^":
            raise _NoConstantError
        return _power(base, exponent)

    def atom(self) -> Value:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return Fraction(token)
        if token.endswith("frac"):
            top = self.group() if self.at == "{" else self.digit()
            return _divide(top, self.group() if self.at == "{" else self.digit())
        if token == "\\sqrt":
            degree = self.group("[", "]") if self.at == "[" else Fraction(2)
            return _power(self.group() if self.at == "{" else self.digit(), _divide(Fraction(1), degree))
        if token == "\\pi":
            return _PI
        self.position -= 1
        return self.group("(", ")")

    def group(self, opening: str = "{", closing: str = "}") -> Value:
        self.take(opening)
        value = self.sum()
        self.take(closing)
        return value

    def digit(self) -> Value:
        """A lone digit without braces, as in `\\frac12` and `x^2`; the first one of a longer number is ambiguous."""
        token = self.take()
        if len(token) == 1 and token.isdigit():
            return Fraction(token)
        if len(token) == 2 and token.isdigit():  # `\frac12`: the second digit stays
            self.position -= 1
            self.tokens[self.position] = token[1]
            return Fraction(token[0])
        raise _NoConstantError


def _negative(value: Value) -> Value:
    return -value if isinstance(value, Fraction) else _CONTEXT.minus(value)


def _add(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    return _CONTEXT.add(_decimal(a), _decimal(b))


def _multiply(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return _CONTEXT.multiply(_decimal(a), _decimal(b))


def _divide(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a / b
    return _CONTEXT.divide(_decimal(a), _decimal(b))


def _power(base: Value, exponent: Value) -> Value:
    """Real powers of numbers above 0, and whole powers of others."""
    if not isinstance(exponent, Fraction) or abs(exponent) > _POWER:
        raise _NoConstantError
    if exponent.denominator == 1 and isinstance(base, Fraction):
        return Fraction(base**exponent.numerator)
    if base < 0 or (base == 0 and exponent <= 0):
        raise _NoConstantError
    root = _CONTEXT.power(_decimal(base), _decimal(exponent))
    return _rational(base, exponent, root)


def _rational(base: Value, exponent: Fraction, root: Decimal) -> Value:
    """The power exactly where it is a whole number, as of a square."""
    whole = Fraction(int(root.to_integral_value()))
    if isinstance(base, Fraction) and whole < 10**20 and whole**exponent.denominator == base**exponent.numerator:
        return whole
    return root
