r"""The meaning of a relation: the value of a name, as in `x = 5`, or a set of real numbers, as in `0 < x \le 1`.

Sets of numbers are intervals in order: `(-1, 1) \cup [2, 3]`, `\{2\}` and `x \ne 3` are sets as well.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial, reduce
from typing import Any, NamedTuple

from freeprm.core.answers.tree import Node, num
from freeprm.core.answers.units import Unit
from freeprm.core.answers.values import Interpretation, NoValueError, agree, at_points, constant, inexact, letters

SCALARS = (
    "num", "sym", "pi", "e", "i", "neg", "group", "add", "mul", "div", "pow", "root", "call", "percent", "degree", "oo",
)  # fmt: skip
"""Kinds of expressions."""


def infinite(node: Node) -> int:
    """1 for infinity, -1 for the negative one, 0 for anything else."""
    if node.kind == "oo":
        return 1
    return -infinite(node.parts[0]) if node.kind == "neg" else 0


def measured_part(node: Node) -> tuple[Node, Unit]:
    """A number and its unit."""
    return (node.parts[0], node.detail) if node.kind == "quantity" else (node, Unit())


def stated(node: Node) -> Node:
    """The value without its name or unit."""
    if node.kind == "quantity":
        return stated(node.parts[0])
    value = value_of(node)
    return node if value is None else stated(value)


def value_of(node: Node) -> Node | None:
    r"""The value that `x = 5`, `AB = 5` or `x = 1/3 \approx 0.33` gives to a name; None for other relations."""
    if node.kind != "relation":
        return None
    signs = node.name.split()
    if {*signs} - {"=", "~", "in"} or ("in" in signs and len(signs) > 1):
        return None
    sides = [*node.parts]
    if signs == ["in"]:
        return sides[1] if is_name(sides[0]) else None
    if is_name(sides[-1]) and not is_name(sides[0]) and len(sides) == 2:
        return sides[0]
    named = any(map(is_name, sides[:-1]))
    start = next((index for index, side in enumerate(sides) if not is_name(side)), len(sides) - 1)
    stop = start
    while stop < len(signs) and signs[stop] == "=":
        stop += 1
    if named or (not letters(node) and _consistent(sides, signs)):
        return sides[stop]
    return sides[0] if signs[0] == "~" and letters(node) else None


def _consistent(sides: Sequence[Node], signs: Sequence[str]) -> bool:
    """Whether a chain of numbers such as `0.56 = 56\\%` holds; `~` allows for rounding."""
    for left, sign, right in zip(sides, signs, sides[1:], strict=False):
        try:
            plain, literal = [
                [constant(measured_part(side)[0], Interpretation(ignore_signs=signs_too)) for side in (left, right)]
                for signs_too in (True, False)
            ]
        except NoValueError:
            return False
        if sign == "=" and not agree(*plain) and not agree(*literal):
            return False
        if sign == "~" and abs(inexact(plain[0]) - inexact(plain[1])) > 10.0 ** -_decimals(measured_part(right)[0]):
            return False
    return True


def _decimals(node: Node) -> int:
    return (node.detail or 0) if node.kind == "num" else max(map(_decimals, node.parts), default=0)


def name_of(node: Node) -> str | None:
    if node.kind != "relation" or value_of(node) is None:
        return None
    name = next((side for side in node.parts if is_name(side)), None)
    return None if name is None else _shown(name)


def _shown(node: Node) -> str:
    return node.name + "".join(map(_shown, node.parts)) if node.parts or node.name else node.kind


def is_name(node: Node) -> bool:
    if node.kind in ("sym", "e", "i", "words"):
        return True
    if node.kind == "quantity":
        return is_name(node.parts[0])
    if node.kind == "call":
        return node.name.startswith("of ") or (
            node.name == "abs" and is_name(node.parts[0]) and node.parts[0].kind == "mul"
        )
    if node.kind == "mul":
        return all(
            part.kind in ("sym", "e", "i", "call", "group") and (part.kind != "group" or is_name(part.parts[0]))
            for part in node.parts
        )
    return node.kind in ("div", "ratio", "group", "tuple") and bool(node.parts) and all(map(is_name, node.parts))


def names_of(node: Node) -> list[str]:
    """The names of members that are all of the form `x = 5`, else none."""
    found = [name_of(item) for item in node.parts]
    return [name for name in found if name is not None] if all(name is not None for name in found) else []


def without_names(node: Node) -> list[Node]:
    """The members without their names; `p=5, q=2; p=7, q=2` as two pairs."""
    names = names_of(node)
    values = [value_of(item) or item for item in node.parts]
    size = len({*names})
    if names and 1 < size < len(names) and names == names[:size] * (len(names) // size):
        return [Node("tuple", tuple(values[start : start + size]), name="()") for start in range(0, len(names), size)]
    if names and size == len(names) and all(len(name) == 1 for name in names):
        return [value for _, value in sorted(zip(names, values, strict=True), key=lambda item: item[0])]
    return values


FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "==": "==", "~": "~", "in": "has"}


def difference(relation: Node) -> Node:
    left, right = relation.parts
    return Node("add", (left, Node("neg", (right,))))


class RealInterval(NamedTuple):
    low: Node
    high: Node
    closed: tuple[bool, bool]
    ends: tuple[float, float]
    """For sorting."""


_MINUS, _PLUS = Node("neg", (Node("oo"),)), Node("oo")


_ALL = RealInterval(_MINUS, _PLUS, (False, False), (float("-inf"), float("inf")))


def as_intervals(node: Node) -> list[RealInterval] | None:
    """A set of real numbers as sorted intervals that do not touch; None if it is not certainly such a set."""
    if node.kind == "numbers":
        return [_ALL] if node.name == "R" else None
    if node.kind == "tuple" and len(node.parts) == 2:
        return _interval(node.parts[0], node.parts[1], (node.name[:1] == "[", node.name[-1:] == "]"))
    if node.kind == "set" and node.parts:
        found = [_interval(part, part, (True, True)) for part in node.parts]
        return _united([interval for part in found for interval in part or []]) if all(found) else None
    if node.kind in ("cup", "cap", "setminus"):
        return _combined(node.kind, *map(as_intervals, node.parts))
    if node.kind == "group":
        return as_intervals(node.parts[0])
    if (
        node.kind == "list"
        and node.name in ("and", "or")
        and all(part.kind in ("relation", "cup") for part in node.parts)
    ):
        if any({*part.name.split()} & {"=", "~"} for part in node.parts) or len({*map(only_letter, node.parts)}) > 1:
            return None
        members = map(as_intervals, node.parts)
        return reduce(partial(_combined, "cup" if node.name == "or" else "cap"), members)
    return _solved(node) if node.kind == "relation" else None


def _combined(
    kind: str, ours: list[RealInterval] | None, theirs: list[RealInterval] | None
) -> list[RealInterval] | None:
    if ours is None or theirs is None:
        return None
    if kind == "cup":
        return _united([*ours, *theirs])
    if kind == "setminus":
        theirs = _complement(theirs)
    met = [_met(a, b) for a in ours for b in theirs]
    return _united([interval for interval in met if interval is not None])


def only_letter(node: Node) -> str | None:
    names = letters(node)
    return next(iter(names)) if len(names) == 1 else None


def _interval(low: Node, high: Node, closed: tuple[bool, bool]) -> list[RealInterval] | None:
    low, high = measured_part(low)[0], measured_part(high)[0]
    ends = _end(low), _end(high)
    if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        return None
    inf = float("inf")
    closed = (closed[0] and ends[0] != -inf, closed[1] and ends[1] != inf)
    return [RealInterval(low, high, closed, (ends[0], ends[1]))]


def _end(node: Node) -> float | None:
    sign = infinite(node)
    if sign:
        return sign * float("inf")
    if letters(node) or node.kind not in SCALARS:
        return None
    try:
        value = constant(node, Interpretation(ignore_signs=True))
    except NoValueError:
        return None
    return float(value) if isinstance(value, Fraction) or value.imag == 0 else None


def _united(intervals: list[RealInterval]) -> list[RealInterval]:
    found: list[RealInterval] = []
    for interval in sorted(intervals, key=lambda item: (item.ends[0], not item.closed[0], item.ends[1])):
        last = found[-1] if found else None
        if last and (
            interval.ends[0] < last.ends[1]
            or (interval.ends[0] == last.ends[1] and (interval.closed[0] or last.closed[1]))
        ):
            upper = max(last, interval, key=lambda item: (item.ends[1], item.closed[1]))
            found[-1] = RealInterval(
                last.low, upper.high, (last.closed[0], upper.closed[1]), (last.ends[0], upper.ends[1])
            )
        else:
            found.append(interval)
    return found


def _met(a: RealInterval, b: RealInterval) -> RealInterval | None:
    lower = max(a, b, key=lambda item: (item.ends[0], not item.closed[0]))
    upper = min(a, b, key=lambda item: (item.ends[1], item.closed[1]))
    closed = (lower.closed[0], upper.closed[1])
    if lower.ends[0] > upper.ends[1] or (lower.ends[0] == upper.ends[1] and not all(closed)):
        return None
    return RealInterval(lower.low, upper.high, closed, (lower.ends[0], upper.ends[1]))


def _complement(intervals: list[RealInterval]) -> list[RealInterval]:
    found, low, closed = [], _ALL.low, False
    at = float("-inf")
    for interval in intervals:
        if interval.ends[0] > at or (closed and not interval.closed[0] and interval.ends[0] == at):
            found.append(RealInterval(low, interval.low, (closed, not interval.closed[0]), (at, interval.ends[0])))
        low, closed, at = interval.high, not interval.closed[1], interval.ends[1]
    if at < float("inf"):
        found.append(RealInterval(low, _PLUS, (closed, False), (at, float("inf"))))
    return found


def _solved(node: Node) -> list[RealInterval] | None:
    """The solutions of inequalities in one variable, alone or in a linear expression."""
    signs = node.name.split()
    if signs == ["in"]:
        return as_intervals(node.parts[1]) if is_name(node.parts[0]) else None
    if {*signs} - {"<", ">", "<=", ">=", "!="}:
        return None
    found: list[RealInterval] | None = [_ALL]
    for left, sign, right in zip(node.parts, signs, node.parts[1:], strict=False):
        left, right = measured_part(left)[0], measured_part(right)[0]
        if not letters(left) and letters(right):
            left, sign, right = right, FLIPPED[sign], left
        if letters(right) or not letters(left):
            return None
        found = _combined("cap", found, _half_line(left, sign, right))
    return found


def _half_line(left: Node, sign: str, bound: Node) -> list[RealInterval] | None:
    if left.kind == "call" and left.name == "abs" and left.parts[0].kind == "sym":
        inner = _half_line(left.parts[0], sign, bound)
        positive = _combined("cap", inner, _interval(num(0), _PLUS, (True, False)))
        if positive is None:
            return None
        mirrored = [
            RealInterval(_minus(item.high), _minus(item.low), item.closed[::-1], (-item.ends[1], -item.ends[0]))
            for item in positive
        ]
        return _united([*positive, *mirrored])
    if not is_name(left):
        linear = _linear(left)
        if linear is None:
            return None
        slope, constant_part = linear
        sign = sign if slope > 0 else FLIPPED[sign]
        if slope != 1 or constant_part:
            bound = Node("div", (Node("add", (bound, num(-constant_part))), num(slope)))
    if _end(bound) is None:
        return None
    if sign == "!=":
        point = _interval(bound, bound, (True, True))
        return None if point is None else _complement(point)
    below = sign in ("<", "<=")
    low, high = (_MINUS, bound) if below else (bound, _PLUS)
    return _interval(low, high, (sign == ">=", sign == "<="))


def _minus(node: Node) -> Node:
    return node.parts[0] if node.kind == "neg" else Node("neg", (node,))


def _linear(node: Node) -> tuple[Fraction, Fraction] | None:
    """Slope and constant of a linear expression in one letter with rational coefficients."""
    if len(letters(node)) != 1:
        return None
    values: list[Any] = at_points(node, Interpretation())[:4]
    (name,) = letters(node)
    places: list[Any] = at_points(Node("sym", name=name), Interpretation())[:4]
    if not all(isinstance(value, Fraction) for value in values):
        return None
    x, u = places[:2]
    slope = (values[1] - values[0]) / (u - x)
    rest = values[0] - slope * x
    straight = all(value == slope * place + rest for place, value in zip(places, values, strict=True))
    return (slope, rest) if straight and slope else None
