"""The tree of an answer, and predicates on it."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from freeprm.core.answers.tokens import ParseError


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an answer."""

    kind: str
    parts: tuple["Node", ...] = ()
    name: str = ""
    """Of a letter, a function, a relation or a bracket."""
    value: Fraction | None = None
    """Of a number."""
    detail: Any = None
    """Decimals of a number, the `Unit` of a quantity."""


def num(value: Fraction | int, places: int | None = None) -> Node:
    """A number."""
    return Node("num", value=Fraction(value), detail=places)


def negative(node: Node) -> Node:
    if node.kind == "num":
        return num(-(node.value or 0), node.detail)
    if node.kind in ("percent", "degree"):
        return Node(node.kind, (negative(node.parts[0]),))
    return Node("neg", (node,))


def is_arithmetic(node: Node) -> bool:
    return node.kind not in ("tuple", "set", "list", "relation", "words", "quantity", "based", "numbers", "ratio")


def factors(node: Node) -> tuple[Node, ...]:
    return node.parts if node.kind == "mul" else (node,)


def hoisted(node: Node) -> Node:
    """`5 \\pi\\%` is 5 pi percent."""
    if node.kind == "mul" and node.parts[-1].kind in ("percent", "degree"):
        sign = node.parts[-1]
        if all(part.kind not in ("percent", "degree") for part in node.parts[:-1]):
            return Node(sign.kind, (Node("mul", (*node.parts[:-1], *sign.parts)),))
    return node


def is_of_numbers(node: Node) -> bool:
    """Whether a quotient is of plain numbers: `1/2x` is half of x, but `a/bc` is ambiguous."""
    if node.kind in ("div", "neg", "group"):
        return all(map(is_of_numbers, node.parts))
    return node.kind == "num"


def rational(node: Node) -> Fraction:
    if node.kind == "div":
        top, bottom = map(rational, node.parts)
        if not bottom:
            raise ParseError("divides by zero")
        return top / bottom
    return node.value or Fraction(0)


def is_of_letters(node: Node) -> bool:
    return node.kind in ("sym", "e", "i") or (node.kind in ("mul", "group") and all(map(is_of_letters, node.parts)))


def spelt_out(node: Node) -> str:
    return node.name or node.kind if not node.parts else "".join(map(spelt_out, node.parts))


def spread(items: list[Node]) -> list[Node]:
    """Each item with `\\pm` as two."""
    found: list[Node] = []
    for item in items:
        found += [with_sign(item, 1), with_sign(item, -1)] if holds(item, "pm") else [item]
    return found


def holds(node: Node, *kinds: str) -> bool:
    """Whether it contains a node of one of these kinds."""
    return _holds(node, kinds)


def _holds(node: Node, kinds: tuple[str, ...]) -> bool:
    return node.kind in kinds or any(_holds(part, kinds) for part in node.parts)


def with_sign(node: Node, sign: int) -> Node:
    if node.kind == "pm":
        inside = with_sign(node.parts[0], sign)
        return inside if (node.name == "pm") == (sign > 0) else negative(inside)
    parts = tuple(with_sign(part, sign) for part in node.parts)
    return Node(node.kind, parts, node.name, node.value, node.detail) if parts != node.parts else node
