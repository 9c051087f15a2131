"""The values of expressions: rational ones exactly, others to 50 digits, those with letters at fixed points.

Letters are real numbers, so points at which a root or a logarithm is not real are ignored; a constant, or an expression
with the imaginary unit, has its principal complex value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from math import comb, factorial, gcd, isqrt, lcm, perm
from typing import Any

from freeprm.core.answers.tree import Node, holds

Number = Any
"""A Fraction for an exact value, else a real or complex number of mpmath."""
DIGITS = 50
_AGREE = 30  # digits of equal values that agree
_LARGEST_BITS = 100_000  # of an exact number
_LARGEST_EXPONENT = 10**6  # of e
_LARGEST_FACTORIAL = 5_000


class NoValueError(ArithmeticError):
    """The expression has no value there, or none within this arithmetic."""


@dataclass(frozen=True, slots=True)
class Interpretation:
    """Conventions by which an expression is read."""

    ignore_signs: bool = False
    """Ignore percent and degree signs, except inside functions."""
    log_base: Fraction | None = Fraction(7389, 1009)
    """Of a logarithm without a base: 10, e (None), or by default a base that nobody means."""


@dataclass(frozen=True, slots=True)
class Environment:
    """How and at which point an expression is evaluated."""

    context: Any
    """mpmath's, with the precision."""
    ignore_signs: bool
    """See `Interpretation`, as the next."""
    log_base: Fraction | None
    real: bool = False
    """A value that is not real is none."""
    point: int = 0
    """Index of a point; see `_value_of_letter`."""

    @classmethod
    def of(cls, interpretation: Interpretation, *, real: bool = False) -> "Environment":
        """With the usual precision."""
        return cls(context(DIGITS), interpretation.ignore_signs, interpretation.log_base, real)


@lru_cache(maxsize=4)
def context(digits: int) -> Any:
    """mpmath with its own precision, so that the global one is unchanged."""
    from mpmath.ctx_mp import MPContext

    made = MPContext()
    made.dps = digits
    return made


def letters(node: Node) -> frozenset[str]:
    """Names of letters and unknown functions."""
    own = {node.name} if node.kind == "sym" or (node.kind == "call" and node.name.startswith("of ")) else set[str]()
    return frozenset(own.union(*map(letters, node.parts)))


def constant(node: Node, interpretation: Interpretation = Interpretation()) -> Number:
    """The value of an expression without letters, with rounding errors around 0 cut off.

    Raises:
        NoValueError: it has none.
    """
    env = Environment.of(interpretation)
    value = evaluate(node, env)
    if isinstance(value, Fraction) or abs(value) > 1e-20:
        return _without_dust(value)
    finer = evaluate(node, replace(env, context=context(2 * DIGITS)))
    return value if abs(finer - value) < abs(value) * 1e-15 else Fraction(0)


def _without_dust(value: Number) -> Number:
    """The value without a real or imaginary part that is a rounding error."""
    if isinstance(value, Fraction) or not hasattr(value, "imag") or value.imag == 0:
        return value if isinstance(value, Fraction) else value.real
    if abs(value.imag) < abs(value.real) * 1e-35:
        return value.real
    return value - value.real if abs(value.real) < abs(value.imag) * 1e-35 else value


def pairs(first: Node, second: Node, interpretation: Interpretation) -> Iterator[tuple[Number, Number]]:
    """The values of two expressions at the points at which both have one."""
    (ours, theirs), points = _at_points((first, second), interpretation)
    yield from ((ours[index], theirs[index]) for index in points)


def at_points(node: Node, interpretation: Interpretation) -> list[Number | None]:
    """The value of an expression at each point, or None."""
    (values,), points = _at_points((node,), interpretation)
    return [value if index in points else None for index, value in enumerate(values)]


def _at_points(nodes: Sequence[Node], interpretation: Interpretation) -> tuple[list[list[Number | None]], list[int]]:
    """The values of expressions, and the points to compare: positive ones only, if some value is not real at others."""
    imaginary = any(holds(node, "i") for node in nodes)
    env = Environment.of(interpretation, real=not imaginary)
    found = [[_at(node, env, point) for point in range(_WHOLE)] for node in nodes]
    defined = _defined(found)
    positive = [index for index in defined if index < _NEGATIVE]
    if positive and not {*range(_NEGATIVE, _WHOLE)} <= {*defined}:
        defined = positive
    if len(defined) < 2:
        for node, values in zip(nodes, found, strict=True):
            values += [_at(node, env, point) for point in range(_WHOLE, _POINTS)]
        defined = _defined(found)
    return found, defined


def _defined(found: Sequence[Sequence[Number | None]]) -> list[int]:
    """The points at which all expressions have a value."""
    return [
        index for index, values in enumerate(zip(*found, strict=True)) if all(value is not None for value in values)
    ]


def _at(node: Node, env: Environment, point: int) -> Number | None:
    try:
        return evaluate(node, replace(env, point=point))
    except NoValueError:
        return None


def inexact(value: Number) -> Number:
    """The value as a number of mpmath."""
    return _inexact(context(DIGITS), value)


def agree(a: Number, b: Number) -> bool:
    """Whether two values are equal up to rounding."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    made = context(DIGITS)
    x, y = _inexact(made, a), _inexact(made, b)
    return bool(abs(x - y) <= max(abs(x), abs(y)) * made.mpf(10) ** -_AGREE)


def evaluate(node: Node, env: Environment) -> Number:
    """The value in an environment; a NoValueError if there is none."""
    rule = _RULES.get(node.kind)
    if rule is None:
        raise NoValueError(f"{node.kind} has no value")
    try:
        value = rule(node, env)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError) as error:
        raise NoValueError(str(error)) from error
    if isinstance(value, Fraction):
        if value.numerator.bit_length() + value.denominator.bit_length() > _LARGEST_BITS:
            raise NoValueError("too large")
        return value
    if not env.context.isfinite(value):
        raise NoValueError("no finite value")
    if env.real and value.imag != 0:
        raise NoValueError("not real")
    return value.real if value.imag == 0 else value


_NEGATIVE, _WHOLE, _POINTS = 3, 6, 10  # first points with negative letters, and with whole ones as for `n!`; end


def _value_of_letter(name: str, env: Environment) -> Number:
    """A fixed number for each name and point: between 1 and 2, below 1, large, below 0, of either sign, then whole."""
    share = int.from_bytes(blake2b(name.encode(), digest_size=6, salt=bytes([env.point])).digest())
    unit = Fraction(share, 2**48)
    sign = -1 if share % 2 else 1
    return (
        1 + unit, (1 + 8 * unit) / 10, 3 + 10 * unit, -1 - unit, sign * (1 + unit), sign * (1 + 8 * unit) / 10,
        Fraction(3 + share % 11), Fraction(4 + share % 23), Fraction(7 + share % 17), Fraction(2 + share % 7),
    )[env.point]  # fmt: skip


def _inexact(made: Any, value: Number) -> Number:
    return made.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else made.convert(value)


def _add(node: Node, env: Environment) -> Number:
    total: Number = Fraction(0)
    for part in node.parts:
        total = _sum(total, evaluate(part, env), env)
    return total


def _sum(a: Number, b: Number, env: Environment) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    total = _inexact(env.context, a) + _inexact(env.context, b)
    size = max(abs(_inexact(env.context, a)), abs(_inexact(env.context, b)))
    cut = size * env.context.mpf(10) ** -(env.context.dps - 6)
    return Fraction(0) if abs(total) < cut else total


def _multiply(node: Node, env: Environment) -> Number:
    product: Number = Fraction(1)
    for part in node.parts:
        product = _product(product, evaluate(part, env), env)
    return product


def _product(a: Number, b: Number, env: Environment) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return _inexact(env.context, a) * _inexact(env.context, b)


def _divide(node: Node, env: Environment) -> Number:
    top, bottom = (evaluate(part, env) for part in node.parts)
    if bottom == 0:
        raise NoValueError("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return top / bottom
    return _inexact(env.context, top) / _inexact(env.context, bottom)


def _power(node: Node, env: Environment) -> Number:
    exponent = evaluate(node.parts[1], replace(env, ignore_signs=False))
    if node.parts[0].kind == "e":
        return _exp(exponent, env)
    return _raised(evaluate(node.parts[0], env), exponent, env)


def _raised(base: Number, exponent: Number, env: Environment) -> Number:
    made = env.context
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
        if base < 0 and env.real and exponent.denominator % 2:
            return (-1) ** exponent.numerator * _raised(-base, exponent, env)
        if base < 0:
            if env.real or exponent.denominator % 2:
                raise NoValueError("a power of a negative number, which could be read in two ways")
        else:
            exact = _exact_root(base, exponent.denominator)
            if exact is not None:
                return _raised(exact, Fraction(exponent.numerator), env)
    x, y = _inexact(made, base), _inexact(made, exponent)
    if env.real and (x.imag != 0 or x < 0):
        raise NoValueError("a power of a negative number")
    if abs(y) * (1 + abs(made.log(abs(x)))) > _LARGEST_EXPONENT:
        raise NoValueError("too large")
    return made.power(x, y)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The root, if it is rational."""
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


def _root(node: Node, env: Environment) -> Number:
    value = evaluate(node.parts[0], replace(env, ignore_signs=False))
    degree = evaluate(node.parts[1], replace(env, ignore_signs=False))
    if degree == 0:
        raise NoValueError("a root of degree 0")
    made = env.context
    odd = isinstance(degree, Fraction) and degree.denominator == 1 and degree % 2 == 1
    negative = (isinstance(value, Fraction) or value.imag == 0) and value < 0
    if negative and odd:  # the real root, as a radical sign means
        return -_raised(-value, 1 / degree, env)
    if negative and degree == 2 and not env.real:
        root = _raised(-value, Fraction(1, 2), env)
        return made.mpc(0, 1) * _inexact(made, root)
    if negative and env.real:
        raise NoValueError("a root of a negative number")
    return _raised(value, 1 / degree if isinstance(degree, Fraction) else 1 / _inexact(made, degree), env)


def _exp(exponent: Number, env: Environment) -> Number:
    if exponent == 0:
        return Fraction(1)
    x = _inexact(env.context, exponent)
    if abs(x) > _LARGEST_EXPONENT:
        raise NoValueError("too large")
    return env.context.exp(x)


def _call(node: Node, env: Environment) -> Number:
    inside = replace(env, ignore_signs=False)
    values = [evaluate(part, inside) for part in node.parts]
    if node.name.startswith("of "):
        shown = ",".join(env.context.nstr(_inexact(env.context, value), 20) for value in values)
        return _value_of_letter(f"{node.name}({shown})", env)
    if node.name in _WHOLE_FUNCTIONS:
        return _WHOLE_FUNCTIONS[node.name](values, env)
    (value, *rest) = values
    if node.name == "abs":
        return abs(value)
    if node.name == "exp":
        return _exp(value, env)
    if node.name in ("log", "ln"):
        return _logarithm(value, rest[0] if rest else None, env, natural=node.name == "ln")
    return _elementary(node.name, value, env)


def _elementary(name: str, value: Number, env: Environment) -> Number:
    made = env.context
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


def _logarithm(value: Number, base: Number | None, env: Environment, *, natural: bool) -> Number:
    made = env.context
    if value == 0:
        raise NoValueError("the logarithm of zero")
    x = _inexact(made, value)
    if env.real and (x.imag != 0 or x < 0):
        raise NoValueError("the logarithm of a negative number")
    found = made.log(x)
    base = env.log_base if base is None and not natural else base
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


def _factorial(values: list[Number], env: Environment) -> Number:
    (value,) = values
    if isinstance(value, Fraction) and value.denominator == 1 and value >= 0:
        return Fraction(factorial(*_whole(values)))
    if not env.real or value < 0:
        raise NoValueError("no factorial")
    return env.context.gamma(_inexact(env.context, value) + 1)


def _two(function: Callable[[int, int], int]) -> Callable[[list[Number], Environment], Number]:
    def of(values: list[Number], env: Environment) -> Number:
        first, second = _whole(values)
        return Fraction(function(first, second))

    return of


def _many(function: Callable[..., int]) -> Callable[[list[Number], Environment], Number]:
    return lambda values, env: Fraction(function(*_whole(values, lowest=-(10**12), highest=10**12)))


def _extreme(sign: int) -> Callable[[list[Number], Environment], Number]:
    def of(values: list[Number], env: Environment) -> Number:
        if any(not isinstance(value, Fraction) and value.imag != 0 for value in values):
            raise NoValueError("complex numbers have no order")
        return max(values, key=lambda value: sign * _inexact(env.context, value))

    return of


def _rounded(up: bool) -> Callable[[list[Number], Environment], Number]:
    def of(values: list[Number], env: Environment) -> Number:
        (value,) = values
        if isinstance(value, Fraction):
            return Fraction(-(-value // 1) if up else value // 1)
        if value.imag != 0 or abs(value) > 1e15:
            raise NoValueError("no real number, or too large")
        return Fraction(int(env.context.ceil(value) if up else env.context.floor(value)))

    return of


def _modulo(values: list[Number], env: Environment) -> Number:
    value, modulus = _whole(values, lowest=-(10**12), highest=10**12)
    return Fraction(value % modulus)


_WHOLE_FUNCTIONS: Mapping[str, Callable[[list[Number], Environment], Number]] = {
    "factorial": _factorial, "choose": _two(comb), "permutations": _two(perm), "gcd": _many(gcd), "lcm": _many(lcm),
    "max": _extreme(1), "min": _extreme(-1), "floor": _rounded(up=False), "ceil": _rounded(up=True), "mod": _modulo,
}  # fmt: skip


def _sign(size: Callable[[Environment], Number]) -> Callable[[Node, Environment], Number]:
    def of(node: Node, env: Environment) -> Number:
        value = evaluate(node.parts[0], env)
        return value if env.ignore_signs else _product(value, size(env), env)

    return of


_RULES: Mapping[str, Callable[[Node, Environment], Number]] = {
    "num": lambda node, env: node.value,
    "sym": lambda node, env: _value_of_letter(node.name, env),
    "pi": lambda node, env: +env.context.pi,
    "e": lambda node, env: env.context.exp(1),
    "i": lambda node, env: env.context.mpc(0, 1),
    "neg": lambda node, env: -evaluate(node.parts[0], env),
    "group": lambda node, env: evaluate(node.parts[0], env),
    "add": _add, "mul": _multiply, "div": _divide, "pow": _power, "root": _root, "call": _call,
    "percent": _sign(lambda env: Fraction(1, 100)),
    "degree": _sign(lambda env: env.context.pi / 180),
}  # fmt: skip
