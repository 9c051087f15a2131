"""Keys of answers, for votes: answers with equal keys are equal, and most equal answers have equal keys."""

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache, partial

from freeprm.core.answers.comparison import in_base_units, plain_words, stem
from freeprm.core.answers.extraction import CHOICE, tidy
from freeprm.core.answers.limits import exceeded_limit
from freeprm.core.answers.parsing import parse
from freeprm.core.answers.relations import (
    SCALARS,
    RealInterval,
    as_intervals,
    difference,
    infinite,
    measured_part,
    names_of,
    value_of,
    without_names,
)
from freeprm.core.answers.tokens import ParseError
from freeprm.core.answers.tree import Node
from freeprm.core.answers.values import (
    DIGITS,
    Interpretation,
    NoValueError,
    Number,
    at_points,
    constant,
    context,
    inexact,
    letters,
)

_KEY_DIGITS = 20
_INNER_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # all but the space in `1 1/2`


@lru_cache(maxsize=65536)
def canonical(answer: str | None, *, form: bool = False, units: bool = True) -> str | None:
    """A key for voting.

    Numbers have their value as a key, formulas their values at fixed points, words their lower case, units their size;
    an answer that is not parsed, or too large to evaluate, its characters without whitespace. None, which does not
    vote, for a missing or empty answer. `key_among` ignores a unit that only some answers to a problem have.

    Args:
        answer: as found in a response.
        form: by the form of an expression, not its value; see `AnswerComparison.form`.
        units: distinguish units; without, 12 m and 12 cm have one key.
    """
    text = tidy(answer or "")
    if not text:
        return None
    if choice := CHOICE.fullmatch(text):
        return choice["letter"]
    characters = _INNER_SPACE.sub("", text)
    if exceeded_limit(text) is not None:
        return characters
    try:
        tree = parse(text)
    except ParseError:
        return characters
    return form_key(tree) if form else key(tree, units=units)


def key_among(answers: Iterable[str | None], *, form: bool = False) -> Callable[[str | None], str | None]:
    """`canonical` for the answers to one problem: 12 and 12 cm have one key, unless there are answers in m as well."""
    both = {tuple(canonical(answer, form=form, units=units) for units in (True, False)) for answer in answers}
    measured = [(full, plain) for full, plain in both if full != plain]
    mixed = any(len({pair[side] for pair in measured}) < len(measured) for side in (0, 1))
    return partial(canonical, form=form, units=mixed)


def key(node: Node, *, units: bool = True) -> str:
    """A text that is equal for equivalent answers only; `units` as for `canonical`."""
    if node.kind in SCALARS:
        return _scalar_key(node)
    if node.kind == "quantity":
        return _quantity_key(node, units=units)
    if node.kind == "relation":
        value = value_of(node)
        if value is not None:
            return key(value, units=units)
    numbers = as_intervals(node) if node.kind not in ("tuple", "set") else None
    if numbers is not None:
        return " u ".join(map(_interval_key, numbers))
    if node.kind == "relation" and node.name == "=":
        return _equation_key(node)
    if node.kind in ("list", "set"):
        names = names_of(node)
        items = [key(item, units=units) for item in without_names(node)]
        if len({*names}) == len(names) > 1:
            return f"({','.join(items)})"
        return f"{{{','.join(sorted({*items}))}}}" if len(items) != 1 else items[0]
    if node.kind == "words":
        return " ".join(plain_words(node))
    if node.kind == "based":
        return f"{node.name} in base {node.value}"
    if node.kind == "ratio" and node.name != "clock":
        return f"ratio {','.join(_scalar_key(Node('div', (part, node.parts[-1]))) for part in node.parts)}"
    opening, closing = node.name[:1], node.name[1:]
    parts = ",".join(key(part, units=units) for part in node.parts)
    return f"{opening}{parts}{closing}" if node.kind == "tuple" else f"{node.kind} {node.name}({parts})"


def _scalar_key(node: Node) -> str:
    if sign := infinite(node):
        return "oo" if sign > 0 else "-oo"
    interpretation = Interpretation(ignore_signs=True)
    names = sorted(letters(node))
    try:
        values = [constant(node, interpretation)] if not names else at_points(node, interpretation)
    except NoValueError:
        return form_key(node)
    if all(value is None for value in values):
        return form_key(node)
    return " ".join([*("-" if value is None else _number_key(value) for value in values), *names])


def _number_key(value: Number) -> str:
    if isinstance(value, Fraction) and value.denominator == 1 and abs(value) < 10**_KEY_DIGITS:
        return str(value)
    if isinstance(value, Fraction) and value.denominator == 1:
        return str(value) if value.numerator.bit_length() < 10_000 else hex(value.numerator)
    shown = inexact(value)
    real, imaginary = (context(DIGITS).nstr(part, _KEY_DIGITS) for part in (shown.real, shown.imag))
    real = real.removesuffix(".0")
    return real if shown.imag == 0 else f"{real}{'' if imaginary[0] == '-' else '+'}{imaginary}i"


def _quantity_key(node: Node, *, units: bool) -> str:
    inside, unit = measured_part(node)
    qualifiers = sorted(map(stem, unit.qualifiers))
    if not units or not unit.dimensions:
        return " ".join([key(inside), *qualifiers])
    dimensions = [f"{base}^{exponent}" for base, exponent in unit.dimensions]
    return " ".join([key(in_base_units(inside, unit)), *dimensions, *qualifiers])


def _interval_key(interval: RealInterval) -> str:
    low, high = _scalar_key(interval.low), _scalar_key(interval.high)
    if low == high:
        return f"{{{low}}}"
    return f"{'[' if interval.closed[0] else '('}{low},{high}{']' if interval.closed[1] else ')'}"


def _equation_key(node: Node) -> str:
    values = at_points(difference(node), Interpretation())
    first = next((value for value in values if value is not None and value != 0), None)
    if first is None:
        return form_key(node)
    scaled = ["-" if value is None else _number_key(inexact(value) / inexact(first)) for value in values]
    return " ".join(["=", *scaled, *sorted(letters(node))])


def form_key(node: Node) -> str:
    """The form of an expression, without brackets that change nothing and the signs of products."""
    if node.kind == "group":
        return form_key(node.parts[0])
    own = [node.kind, node.name, "" if node.value is None else str(node.value)]
    if node.kind == "quantity":
        own.append(str(node.detail.dimensions))
    return (
        f"{':'.join(filter(None, own))}({','.join(map(form_key, node.parts))})"
        if node.parts
        else ":".join(filter(None, own))
    )
