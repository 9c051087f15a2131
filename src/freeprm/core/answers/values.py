"""The values of expressions: rational ones exactly, others to 50 digits, those with letters at fixed points.

Letters stand for real numbers, so a point at which a root or a logarithm is not real says nothing; a constant, and an
expression in which the imaginary unit stands, has its principal complex value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from hashlib import blake2b
from math import comb, factorial, gcd, isqrt, lcm, perm
from typing import Any

from freeprm.core.answers.tree import Node

Number = Any
"""A Fraction where the value is known exactly, else a real or complex number of mpmath's."""
DIGITS = 50
_AGREE = 30  # digits in which equal values agree
_LARGEST_BITS = 100_000  # of an exact number
_LARGEST_EXPONENT = 10**6  # of e
_LARGEST_FACTORIAL = 5_000


class NoValueError(ArithmeticError):
    """The expression has no value there, or none that this arithmetic can reach."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression is evaluated, and how."""

    context: Any
    """mpmath's, which has the precision."""
    point: int = 0
    """Which of the points; see `_value_of_letter`."""
    real: bool = False
    """What is not real has no value."""
    signs: bool = False
    """See `Reading`."""
    log_base: Fraction | None = None
    """See `Reading`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an expression means where that depends."""

    signs: bool = False
    """Percent and degree signs are overlooked, except inside functions."""
    log_base: Fraction | None = Fraction(7389, 1009)
    """Of a logarithm without a base: one that nobody means unless 10 or e (None) is asked for."""


@lru_cache(maxsize=4)
def context(digits: int) -> Any:
    """mpmath at a precision of its own, so that nobody else's is changed."""
    from mpmath.ctx_mp import MPContext

    made = MPContext()
    made.dps = digits
    return made


def letters(node: Node) -> frozenset[str]:
    """Names of what has no value of its own."""
    own = {node.name} if node.kind == "sym" or (node.kind == "call" and node.name.startswith("of ")) else set[str]()
    return frozenset(own.union(*map(letters, node.parts)))


def has_imaginary(node: Node) -> bool:
    """Whether the imaginary unit stands in it."""
    return node.kind == "i" or any(map(has_imaginary, node.parts))


def constant(node: Node, reading: Reading = Reading()) -> Number:
    """The value of an expression without letters; rounding that is left where the true value is 0 is cut off.

    Raises:
        NoValueError: it has none.
    """
    place = Place(context(DIGITS), signs=reading.signs, log_base=reading.log_base)
    value = evaluate(node, place)
    if isinstance(value, Fraction) or abs(value) > 1e-20:
        return _without_dust(value)
    finer = evaluate(node, replace(place, context=context(2 * DIGITS)))
    return value if abs(finer - value) < abs(value) * 1e-15 else Fraction(0)


def _without_dust(value: Number) -> Number:
    """Without a real or imaginary part that is rounding."""
    if isinstance(value, Fraction) or not hasattr(value, "imag") or value.imag == 0:
        return value if isinstance(value, Fraction) else value.real
    if abs(value.imag) < abs(value.real) * 1e-35:
        return value.real
    return value - value.real if abs(value.real) < abs(value.imag) * 1e-35 else value


def pairs(first: Node, second: Node, reading: "Reading") -> Iterator[tuple[Number, Number]]:
    """The values of two expressions at the points where both have one."""
    imaginary = has_imaginary(first) or has_imaginary(second)
    place = Place(context(DIGITS), real=not imaginary, signs=reading.signs, log_base=reading.log_base)
    found = [list(map(partial(_at, node, place), range(_WHOLE))) for node in (first, second)]
    told = _telling(*found)
    if len(told) < 2:
        found = [list(map(partial(_at, node, place), range(_POINTS))) for node in (first, second)]
        told = [index for index, pair in enumerate(zip(*found, strict=True)) if None not in pair]
    yield from ((found[0][index], found[1][index]) for index in told)


def _telling(*values: Sequence[Number | None]) -> list[int]:
    """The points that count: where one expression is not real for letters of some sign, letters are positive."""
    defined = [index for index in range(_WHOLE) if all(found[index] is not None for found in values)]
    everywhere = all(index in defined for index in range(_NEGATIVE, _WHOLE))
    positive = [index for index in defined if index < _NEGATIVE]
    return defined if everywhere or not positive else positive


def _at(node: Node, place: Place, point: int) -> Number | None:
    try:
        return evaluate(node, replace(place, point=point))
    except NoValueError:
        return None


def at_points(node: Node, reading: Reading) -> list[Number | None]:
    """The values of an expression at each point, None where it has none."""
    place = Place(context(DIGITS), real=not has_imaginary(node), signs=reading.signs, log_base=reading.log_base)
    found = [_at(node, place, point) for point in range(_WHOLE)]
    told = _telling(found)
    if len(told) > 1:
        return [value if index in told else None for index, value in enumerate(found)]
    return [_at(node, place, point) for point in range(_POINTS)]


def inexact(value: Number) -> Number:
    """The value as a number of mpmath's."""
    return _inexact(context(DIGITS), value)


def agree(a: Number, b: Number) -> bool:
    """Whether two values are the same, but for rounding."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    made = context(DIGITS)
    x, y = _inexact(made, a), _inexact(made, b)
    return bool(abs(x - y) <= max(abs(x), abs(y)) * made.mpf(10) ** -_AGREE)


def evaluate(node: Node, place: Place) -> Number:
    """The value at a place.

    Raises:
        NoValueError: it has none.
    """
    rule = _RULES.get(node.kind)
    if rule is None:
        raise NoValueError(f"{node.kind} has no value")
    try:
        value = rule(node, place)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError) as error:
        raise NoValueError(str(error)) from error
    if isinstance(value, Fraction):
        if value.numerator.bit_length() + value.denominator.bit_length() > _LARGEST_BITS:
            raise NoValueError("too large")
        return value
    if not place.context.isfinite(value):
        raise NoValueError("no finite value")
    if place.real and value.imag != 0:
        raise NoValueError("not real")
    return value.real if value.imag == 0 else value


_NEGATIVE, _WHOLE, _POINTS = 3, 6, 10  # from these on letters may be negative, and whole numbers as in `n!`


def _value_of_letter(name: str, place: Place) -> Number:
    """A fixed number for each name and point: between 1 and 2, below 1, large, below 0, of either sign, then whole."""
    share = int.from_bytes(blake2b(name.encode(), digest_size=6, salt=bytes([place.point])).digest())
    unit = Fraction(share, 2**48)
    sign = -1 if share % 2 else 1
    return (
        1 + unit, (1 + 8 * unit) / 10, 3 + 10 * unit, -1 - unit, sign * (1 + unit), sign * (1 + 8 * unit) / 10,
        Fraction(3 + share % 11), Fraction(4 + share % 23), Fraction(7 + share % 17), Fraction(2 + share % 7),
    )[place.point]  # fmt: skip


def _inexact(made: Any, value: Number) -> Number:
    return made.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else made.convert(value)


def _add(node: Node, place: Place) -> Number:
    total: Number = Fraction(0)
    for part in node.parts:
        total = _sum(total, evaluate(part, place), place)
    return total


def _sum(a: Number, b: Number, place: Place) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    total = _inexact(place.context, a) + _inexact(place.context, b)
    size = max(abs(_inexact(place.context, a)), abs(_inexact(place.context, b)))
    cut = size * place.context.mpf(10) ** -(place.context.dps - 6)
    return Fraction(0) if abs(total) < cut else total


def _multiply(node: Node, place: Place) -> Number:
    product: Number = Fraction(1)
    for part in node.parts:
        product = _product(product, evaluate(part, place), place)
    return product


def _product(a: Number, b: Number, place: Place) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return _inexact(place.context, a) * _inexact(place.context, b)


def _divide(node: Node, place: Place) -> Number:
    top, bottom = (evaluate(part, place) for part in node.parts)
    if bottom == 0:
        raise NoValueError("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return top / bottom
    return _inexact(place.context, top) / _inexact(place.context, bottom)


def _power(node: Node, place: Place) -> Number:
    exponent = evaluate(node.parts[1], replace(place, signs=False))
    if node.parts[0].kind == "e":
        return _exp(exponent, place)
    return _raised(evaluate(node.parts[0], place), exponent, place)


def _raised(base: Number, exponent: Number, place: Place) -> Number:
    made = place.context
    if base == 0:
        if isinstance(exponent, Fraction) and exponent > 0:
            return Fraction(0)
        raise NoValueError("a power of zero")
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        size = base.numerator.bit_length() + base.denominator.bit_length() if isinstance(base, Fraction) else 64
        if abs(exponent) * size > _LARGEST_BITS:
            raise NoValueError("too large")
        return base**exponent.numerator
    if isinstance(exponent, Fraction) and isinstance(base, Fraction):
        if base < 0 and place.real and exponent.denominator % 2:
            return (-1) ** exponent.numerator * _raised(-base, exponent, place)
        if base < 0:
            if place.real or exponent.denominator % 2:
                raise NoValueError("a power of a negative number, which could be read in two ways")
        else:
            exact = _exact_root(base, exponent.denominator)
            if exact is not None:
                return _raised(exact, Fraction(exponent.numerator), place)
    x, y = _inexact(made, base), _inexact(made, exponent)
    if place.real and (x.imag != 0 or x < 0):
        raise NoValueError("a power of a negative number")
    if abs(y) * (1 + abs(made.log(abs(x)))) > _LARGEST_EXPONENT:
        raise NoValueError("too large")
    return made.power(x, y)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The root where it is rational."""
    if degree > 64 or value < 0:
        return None
    roots = [_whole_root(value.numerator, degree), _whole_root(value.denominator, degree)]
    return None if None in roots else Fraction(roots[0] or 0, roots[1] or 1)


def _whole_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = isqrt(value)
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        root = low
    return root if root**degree == value else None


def _root(node: Node, place: Place) -> Number:
    value = evaluate(node.parts[0], replace(place, signs=False))
    degree = evaluate(node.parts[1], replace(place, signs=False))
    if degree == 0:
        raise NoValueError("a root of degree 0")
    made = place.context
    odd = isinstance(degree, Fraction) and degree.denominator == 1 and degree % 2 == 1
    negative = (isinstance(value, Fraction) or value.imag == 0) and value < 0
    if negative and odd:  # the real one, as a radical sign has it
        return -_raised(-value, 1 / degree, place)
    if negative and degree == 2 and not place.real:
        root = _raised(-value, Fraction(1, 2), place)
        return made.mpc(0, 1) * _inexact(made, root)
    if negative and place.real:
        raise NoValueError("a root of a negative number")
    return _raised(value, 1 / degree if isinstance(degree, Fraction) else 1 / _inexact(made, degree), place)


def _exp(exponent: Number, place: Place) -> Number:
    if exponent == 0:
        return Fraction(1)
    x = _inexact(place.context, exponent)
    if abs(x) > _LARGEST_EXPONENT:
        raise NoValueError("too large")
    return place.context.exp(x)


def _call(node: Node, place: Place) -> Number:
    inside = replace(place, signs=False)
    values = [evaluate(part, inside) for part in node.parts]
    if node.name.startswith("of "):
        shown = ",".join(place.context.nstr(_inexact(place.context, value), 20) for value in values)
        return _value_of_letter(f"{node.name}({shown})", place)
    if node.name in _WHOLE_FUNCTIONS:
        return _WHOLE_FUNCTIONS[node.name](values, place)
    (value, *rest) = values
    if node.name == "abs":
        return abs(value)
    if node.name == "exp":
        return _exp(value, place)
    if node.name in ("log", "ln"):
        return _logarithm(value, rest[0] if rest else None, place, natural=node.name == "ln")
    return _elementary(node.name, value, place)


def _elementary(name: str, value: Number, place: Place) -> Number:
    made = place.context
    x = _inexact(made, value)
    if abs(x) > 1e12:
        raise NoValueError("too large")
    found = getattr(made, name)(x)
    if abs(found) < made.mpf(10) ** -(made.dps - 8):  # `sin pi`
        return Fraction(0)
    if abs(found) > made.mpf(10) ** (made.dps - 8):  # `tan(pi/2)`
        raise NoValueError("no finite value")
    halves = made.nint(2 * found.real)
    if abs(2 * found - halves) < made.mpf(10) ** -(made.dps - 8):  # `sin 30°`
        return Fraction(int(halves), 2)
    return found


def _logarithm(value: Number, base: Number | None, place: Place, *, natural: bool) -> Number:
    made = place.context
    if value == 0:
        raise NoValueError("the logarithm of zero")
    x = _inexact(made, value)
    if place.real and (x.imag != 0 or x < 0):
        raise NoValueError("the logarithm of a negative number")
    found = made.log(x)
    base = place.log_base if base is None and not natural else base
    if base is None:
        return Fraction(0) if value == 1 else found
    b = _inexact(made, base)
    if b in (0, 1) or b.imag != 0 or b < 0:
        raise NoValueError("no base of a logarithm")
    found = found / made.log(b)
    nearest = made.nint(found.real)
    return Fraction(int(nearest)) if abs(found - nearest) < made.mpf(10) ** -(made.dps - 8) else found


def _whole(values: list[Number], *, lowest: int = 0, highest: int = _LARGEST_FACTORIAL) -> list[int]:
    if not all(
        isinstance(value, Fraction) and value.denominator == 1 and lowest <= value <= highest for value in values
    ):
        raise NoValueError("expected whole numbers that are not too large")
    return [int(value) for value in values]


def _factorial(values: list[Number], place: Place) -> Number:
    (value,) = values
    if isinstance(value, Fraction) and value.denominator == 1 and value >= 0:
        return Fraction(factorial(*_whole(values)))
    if not place.real or value < 0:
        raise NoValueError("no factorial")
    return place.context.gamma(_inexact(place.context, value) + 1)


def _two(function: Callable[[int, int], int]) -> Callable[[list[Number], Place], Number]:
    def of(values: list[Number], place: Place) -> Number:
        first, second = _whole(values)
        return Fraction(function(first, second))

    return of


def _many(function: Callable[..., int]) -> Callable[[list[Number], Place], Number]:
    return lambda values, place: Fraction(function(*_whole(values, lowest=-(10**12), highest=10**12)))


def _extreme(sign: int) -> Callable[[list[Number], Place], Number]:
    def of(values: list[Number], place: Place) -> Number:
        if any(not isinstance(value, Fraction) and value.imag != 0 for value in values):
            raise NoValueError("complex numbers have no order")
        return max(values, key=lambda value: sign * _inexact(place.context, value))

    return of


def _rounded(up: bool) -> Callable[[list[Number], Place], Number]:
    def of(values: list[Number], place: Place) -> Number:
        (value,) = values
        if isinstance(value, Fraction):
            return Fraction(-(-value // 1) if up else value // 1)
        if value.imag != 0 or abs(value) > 1e15:
            raise NoValueError("no real number, or too large")
        return Fraction(int(place.context.ceil(value) if up else place.context.floor(value)))

    return of


def _modulo(values: list[Number], place: Place) -> Number:
    value, modulus = _whole(values, lowest=-(10**12), highest=10**12)
    return Fraction(value % modulus)


_WHOLE_FUNCTIONS: Mapping[str, Callable[[list[Number], Place], Number]] = {
    "factorial": _factorial, "choose": _two(comb), "permutations": _two(perm), "gcd": _many(gcd), "lcm": _many(lcm),
    "max": _extreme(1), "min": _extreme(-1), "floor": _rounded(up=False), "ceil": _rounded(up=True), "mod": _modulo,
}  # fmt: skip


def _sign(size: Callable[[Place], Number]) -> Callable[[Node, Place], Number]:
    def of(node: Node, place: Place) -> Number:
        value = evaluate(node.parts[0], place)
        return value if place.signs else _product(value, size(place), place)

    return of


_RULES: Mapping[str, Callable[[Node, Place], Number]] = {
    "num": lambda node, place: node.value,
    "sym": lambda node, place: _value_of_letter(node.name, place),
    "pi": lambda node, place: +place.context.pi,
    "e": lambda node, place: place.context.exp(1),
    "i": lambda node, place: place.context.mpc(0, 1),
    "neg": lambda node, place: -evaluate(node.parts[0], place),
    "group": lambda node, place: evaluate(node.parts[0], place),
    "add": _add, "mul": _multiply, "div": _divide, "pow": _power, "root": _root, "call": _call,
    "percent": _sign(lambda place: Fraction(1, 100)),
    "degree": _sign(lambda place: place.context.pi / 180),
}  # fmt: skip
