r"""Whether two answers that were read mean the same, and the key that equal ones have in common.

What is alike: `x = 5` and `5`; `1, 2` and `\{2, 1\}`; `0 < x < 1` and `(0, 1)`; `20\%` and 20, or 0.2; a number with a
unit or a noun and one without. What is not: a set and a pair, two units, two names, `3` PM and `3` AM.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from freeprm.core.answers.relations import (
    FLIPPED,
    SCALARS,
    as_intervals,
    difference,
    infinite,
    measured_part,
    name_of,
    names_of,
    only_letter,
    value_of,
    without_names,
)
from freeprm.core.answers.tree import Node, num
from freeprm.core.answers.units import Unit, singular, word_set
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
    """None where that could not be decided."""
    reason: str | None
    """Why it could not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How answers are read and compared, as far as there is a choice."""

    decimals: int = 6
    """To which two numbers must agree where one of them is a decimal; of small numbers, as many digits."""
    digits: int = 15
    """To which math-verify evaluates two expressions."""
    read: tuple[Literal["latex", "expr"], ...] = ("latex", "expr")
    """What is looked for in a text: formulas between delimiters, and plain numbers and expressions."""
    strict: bool = True
    """Variables have names, and a tuple is no set; else f(x) is f(y)."""
    relations_as_sets: bool = True
    """`-2 <= x <= 7` is the interval [-2, 7]."""
    unreadable_is_wrong: bool = False
    """What cannot be parsed is not equal, as in math-verify, instead of undecided."""
    form: bool = False
    """The answer is an expression whose form counts, as in the game of 24: `8 \\cdot 3` is not 24."""


TRUE, FALSE = Verdict(True, None), Verdict(False, None)
_LONGEST_LIST = 60
_UNSURE_WORDS = word_set("none zero nothing undefined empty infinite infinitely dne exist nonexistent")


def undecided(reason: str) -> Verdict:
    """Neither right nor wrong."""
    return Verdict(None, reason)


def same(pred: Node, gold: Node, how: Comparison) -> Verdict:
    """Whether two answers mean the same."""
    if pred == gold:
        return TRUE
    first, second = _RANKS.get(pred.kind, len(_RANKS)), _RANKS.get(gold.kind, len(_RANKS))
    one, other = (pred, gold) if first <= second else (gold, pred)
    return _RULES.get(one.kind, _scalars)(one, other, how)


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    """Right where all are, wrong where one is."""
    unsure = None
    for verdict in verdicts:
        if verdict.correct is False:
            return FALSE
        unsure = unsure or (verdict if verdict.correct is None else None)
    return unsure or TRUE


# Numbers and expressions.


def _scalars(one: Node, other: Node, how: Comparison) -> Verdict:
    ends = infinite(one), infinite(other)
    if any(ends):
        if all(ends):
            return Verdict(ends[0] == ends[1], None)
        return FALSE if not letters(one) | letters(other) else undecided("one is infinite")
    verdict = _by_value(one, other, how, Interpretation())
    if verdict.correct is not True and (_holds_sign(one) or _holds_sign(other)):
        overlooked = _by_value(one, other, how, Interpretation(ignore_signs=True))
        verdict = overlooked if overlooked.correct or verdict.correct is None else verdict
    if verdict.correct is False and (_holds_log(one) or _holds_log(other)):
        for base in (Fraction(10), None):
            if _by_value(one, other, how, Interpretation(log_base=base)).correct:
                return undecided("the base of a logarithm is not told")
    return verdict


def _by_value(one: Node, other: Node, how: Comparison, interpretation: Interpretation) -> Verdict:
    names = letters(one) | letters(other)
    if not names:
        try:
            a, b = constant(one, interpretation), constant(other, interpretation)
        except NoValueError as error:
            return undecided(f"no value ({error})")
        return Verdict(_close(a, b, places_of(one), places_of(other), how), None)
    n_seen = 0
    for a, b in pairs(one, other, interpretation):
        n_seen += 1
        if not agree(a, b):
            return FALSE
    return TRUE if n_seen > 1 else undecided("no values at enough points")


class Places(NamedTuple):
    point: bool
    """A decimal stands in it."""
    digits: int | None
    """Decimals, where it is one number and no more."""


def places_of(node: Node) -> Places:
    if node.kind == "num":
        return Places(node.detail is not None, node.detail)
    if node.kind in ("neg", "group", "percent", "degree"):
        return places_of(node.parts[0])
    return Places(any(places_of(part).point for part in node.parts), None)


def _close(a: Number, b: Number, ours: Places, theirs: Places, how: Comparison) -> bool:
    """Whether two numbers agree: exactly, or as a decimal agrees with what it is rounded or cut from.

    Two decimals of as many places are equal only where all their digits are.
    """
    if agree(a, b):
        return True
    if not (ours.point or theirs.point) or (ours.digits is not None and ours.digits == theirs.digits):
        return False
    made = context(DIGITS)
    x, y = (made.mpf(v.numerator) / v.denominator if isinstance(v, Fraction) else made.convert(v) for v in (a, b))
    for p, q in ((x.real, y.real), (x.imag, y.imag)):
        apart, size = abs(p - q), max(abs(p), abs(q))
        if apart <= min(1, size) / made.mpf(2 * 10**how.decimals):
            continue
        counts = [places.digits for places in (ours, theirs) if places.digits is not None]
        count = min(counts, default=0)
        rounded = count >= how.decimals and apart < made.mpf(10) ** -count
        if not (rounded and apart <= size * made.mpf(10) ** (1 - how.decimals)):
            return False
    return True


def _holds_sign(node: Node) -> bool:
    return node.kind in ("percent", "degree") or any(map(_holds_sign, node.parts))


def _holds_log(node: Node) -> bool:
    return (node.kind == "call" and node.name == "log" and len(node.parts) == 1) or any(map(_holds_log, node.parts))


# Units, words, bases, ratios.


def _quantities(one: Node, other: Node, how: Comparison) -> Verdict:
    (a, ours), (b, theirs) = measured_part(one), measured_part(other)
    if theirs.empty or ours.empty:
        unit = ours if theirs.empty else theirs
        if unit.qualifiers:
            differ = same(a, b, how).correct is False
            return FALSE if differ else undecided(f"one alone has the words {_listed(unit.qualifiers)}")
        if _in_radians(unit) and (_holds_sign(a) or _holds_sign(b)):
            return _by_value(a, b, how, Interpretation())  # the sign of degrees is a unit beside another one of angles
        compound = one.name == "compound" or other.name == "compound"
        return same(a, b, how) if not compound else undecided("one is in several units")
    if not _turned_alike(ours, theirs):
        if ours.qualifiers and theirs.qualifiers and not ours.qualifiers & theirs.qualifiers:
            return FALSE
        return _differ(a, b, how, f"the words {_listed(ours.qualifiers ^ theirs.qualifiers)}")
    if ours.dimensions != theirs.dimensions and ours.dimensions and theirs.dimensions:
        bases = [{base for base, _ in unit.dimensions} for unit in (ours, theirs)]
        if {"unit"} in bases and bases[0] != bases[1]:  # `15 square units` says nothing against `15 cm^2`
            return same(a, b, how)
        return _differ(a, b, how, "the exponents of their units") if bases[0] == bases[1] else FALSE
    if not (ours.nouns <= theirs.nouns or theirs.nouns <= ours.nouns):
        return _differ(a, b, how, f"the words {_listed(ours.nouns ^ theirs.nouns)}")
    if ours.dimensions != theirs.dimensions or (ours.scale, ours.offset) == (theirs.scale, theirs.offset):
        return same(a, b, how)
    return same(in_base_units(a, ours), in_base_units(b, theirs), how)


def _in_radians(unit: Unit) -> bool:
    return any(base == "radian" for base, _ in unit.dimensions)


def _turned_alike(ours: Unit, theirs: Unit) -> bool:
    mine, yours = ours.qualifiers | ours.leading, theirs.qualifiers | theirs.leading
    stems = [{stem(word) for word in words} for words in (mine, yours)]
    return stems[0] == stems[1] or (not (ours.qualifiers or theirs.qualifiers) and not (mine and yours))


def stem(word: str) -> str:
    for name in ("gain", "los", "win", "won", "increas", "decreas", "profit"):
        if word.startswith(name):
            return name
    return word


def _differ(a: Node, b: Node, how: Comparison, what: str) -> Verdict:
    return FALSE if same(a, b, how).correct is False else undecided(f"they differ in {what}")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(repr(word) for word in sorted(words))


def in_base_units(node: Node, unit: Unit) -> Node:
    if unit.scale == 1 and not unit.offset:
        return node
    scaled = Node("mul", (num(unit.scale, places_of(node).digits and 0), node))
    return Node("add", (scaled, num(unit.offset))) if unit.offset else scaled


def _worded(one: Node, other: Node, how: Comparison) -> Verdict:
    if other.kind == "words":
        return Verdict(plain_words(one) == plain_words(other), None)
    if {*one.name.lower().split()} & _UNSURE_WORDS:
        return undecided(f"one is the words {one.name!r}, the other a formula")
    return FALSE


def plain_words(node: Node) -> list[str]:
    words = (singular(word.rstrip(".")) for word in node.name.lower().split())
    return [word for word in words if word not in ("a", "an", "the")]


def _based(one: Node, other: Node, how: Comparison) -> Verdict:
    if other.kind == "based":
        if one.value == other.value:
            return Verdict(one.name == other.name, None)
        try:
            equal = int(one.name, int(one.value or 10)) == int(other.name, int(other.value or 10))
        except ValueError:
            equal = False
        return undecided("they are in different number bases") if equal else FALSE
    if other.kind == "num" and other.value is not None and other.value.denominator == 1:
        return Verdict(one.name == str(other.value), None)  # a base that only one names is overlooked, like a unit
    unwrapped = value_of(other)
    return same(one, unwrapped, how) if unwrapped is not None and unwrapped.kind != "relation" else FALSE


def _ratios(one: Node, other: Node, how: Comparison) -> Verdict:
    if other.kind != "ratio":
        if len(one.parts) == 2 and other.kind in SCALARS:
            return same(Node("div", one.parts), other, how)
        unwrapped = value_of(other)
        return same(one, unwrapped, how) if unwrapped is not None else FALSE
    if len(one.parts) != len(other.parts):
        return FALSE
    as_written = _all(same(a, b, how) for a, b in zip(one.parts, other.parts, strict=True))
    if as_written.correct:
        return as_written
    alike = _all(
        same(Node("div", (a, one.parts[-1])), Node("div", (b, other.parts[-1])), how)
        for a, b in zip(one.parts[:-1], other.parts[:-1], strict=True)
    )
    if one.name == other.name == "clock":
        return undecided("they may be times or ratios") if alike.correct else FALSE
    return alike


def _residues(one: Node, other: Node, how: Comparison) -> Verdict:
    if other.kind == "residue" and same(one.parts[1], other.parts[1], how).correct:
        apart = Node("add", (one.parts[0], Node("neg", (other.parts[0],))))
        return same(Node("call", (apart, one.parts[1]), name="mod"), num(0), how)
    return undecided("they differ in a modulus")


def _phrases(one: Node, other: Node, how: Comparison) -> Verdict:
    if other.kind == "phrase" and len(one.parts) == len(other.parts):
        inner = [same(a, b, how) for a, b in zip(one.parts, other.parts, strict=True)]
        if [_noun(part) for part in one.parts] == [_noun(part) for part in other.parts] and one.name == other.name:
            return _all(inner)
    units = [_noun(part) for part in one.parts]
    if other.kind in SCALARS and (any(unit.qualifiers for unit in units) or all(unit.empty for unit in units)):
        return FALSE
    return undecided("there are several numbers among words")


def _noun(node: Node) -> Unit:
    return measured_part(node)[1]


# Lists, sets, tuples, matrices.


def _lists(one: Node, other: Node, how: Comparison) -> Verdict:
    if max(len(one.parts), len(other.parts)) > _LONGEST_LIST:
        return undecided(f"a list has more than {_LONGEST_LIST} members")
    if not (one.kind in ("list", "set") and other.kind == "set") and as_intervals(one) and as_intervals(other):
        return _sets(one, other, how)
    if other.kind in ("list", "set"):
        return _all_alike(one, other, how)
    if other.kind == "tuple":
        items = without_names(one)
        named = any(item.kind == "relation" for item in one.parts)
        if len(items) != len(other.parts) or (items and items[0].kind == "tuple"):
            return FALSE
        if one.kind == "set":
            return FALSE
        verdict = _all(same(a, b, how) for a, b in zip(items if named else one.parts, other.parts, strict=True))
        listed = other.name == "()" or len(other.parts) > 2  # `[1, 4]` is an interval, or a list
        return verdict if listed or verdict.correct is False else undecided("one may be an interval")
    if len(one.parts) == 1:
        return same(one.parts[0], other, how)
    if other.kind == "relation":
        unwrapped = value_of(other)
        if unwrapped is not None and unwrapped.kind in ("list", "set", "tuple"):
            return same(one, unwrapped, how)
        return (
            FALSE if unwrapped is not None and one.kind == "list" else undecided("one is a list, the other a relation")
        )
    if other.kind == "numbers" or not one.parts:
        return undecided("one is a set of another kind")
    return FALSE


def _all_alike(one: Node, other: Node, how: Comparison) -> Verdict:
    if any(item.kind == "ldots" for item in (*one.parts, *other.parts)):
        if len(one.parts) != len(other.parts):
            return undecided("dots stand for members")
        return _all(same(a, b, how) for a, b in zip(one.parts, other.parts, strict=True))
    names = [names_of(item) for item in (one, other)]
    if names[0] and names[1] and {*names[0]} == {*names[1]} and len({*names[0]}) == len(names[0]):
        named = dict(zip(names[1], other.parts, strict=True))
        return _all(same(item, named[name], how) for name, item in zip(names[0], one.parts, strict=True))
    ours, theirs = without_names(one), without_names(other)
    ordered = bool(names[0]) != bool(names[1]) and len({*(names[0] or names[1])}) > 1
    if ordered and "set" in (one.kind, other.kind) and len(ours) == len(theirs):
        return undecided("one is a set, the other names its values") if _matched(ours, theirs, how).correct else FALSE
    if ordered and len(ours) == len(theirs):
        as_written = [[value_of(item) or item for item in node.parts] for node in (one, other)]
        for mine, yours in ((ours, theirs), as_written):
            in_order = _all(same(a, b, how) for a, b in zip(mine, yours, strict=False))
            if in_order.correct is not False:
                return in_order
        return undecided("the values are in another order") if _matched(ours, theirs, how).correct else FALSE
    verdict = _matched(ours, theirs, how)
    if one.kind == other.kind == "set" or (len(ours) != len(theirs) and verdict.correct is False):
        contained = _all((_contained(ours, theirs, how), _contained(theirs, ours, how)))
        if one.kind == other.kind == "set" or contained.correct is None:
            return contained
        if contained.correct and all(item.kind == "tuple" for item in (*ours, *theirs)):
            return TRUE  # solutions, of which one is told twice
        return undecided("one repeats a member") if contained.correct else FALSE
    return verdict


def _matched(ours: Sequence[Node], theirs: Sequence[Node], how: Comparison) -> Verdict:
    """Each member with one of the other's, whatever their order."""
    if len(ours) != len(theirs):
        return FALSE
    left, unsure = [*theirs], None
    for item in ours:
        verdicts = [same(item, candidate, how) for candidate in left]
        found = next((index for index, verdict in enumerate(verdicts) if verdict.correct), None)
        if found is not None:
            left.pop(found)
        else:
            unsure = next((verdict for verdict in verdicts if verdict.correct is None), None)
            if unsure is None:
                return FALSE
    return unsure or TRUE


def _contained(ours: Sequence[Node], theirs: Sequence[Node], how: Comparison) -> Verdict:
    unsure = None
    for item in ours:
        verdicts = [same(item, candidate, how) for candidate in theirs]
        if not any(verdict.correct for verdict in verdicts):
            unsure = next((verdict for verdict in verdicts if verdict.correct is None), None)
            if unsure is None:
                return FALSE
    return unsure or TRUE


def _tuples(one: Node, other: Node, how: Comparison) -> Verdict:
    if other.kind == "tuple":
        if len(one.parts) != len(other.parts):
            return FALSE
        if one.name != other.name and len(one.parts) == 2:
            return FALSE
        return _all(same(a, b, how) for a, b in zip(one.parts, other.parts, strict=True))
    if as_intervals(other) is not None:
        return _sets(one, other, how)
    if other.kind == "relation":
        unwrapped = value_of(other)
        if unwrapped is not None:
            return same(one, unwrapped, how)
        return undecided("one is a tuple, the other a relation")
    if other.kind == "grid":
        return _grids(other, one, how)
    return FALSE


def _grids(one: Node, other: Node, how: Comparison) -> Verdict:
    cells = [cell for row in one.parts for cell in row.parts]
    if other.kind == "grid" and one.name == other.name:
        theirs = [cell for row in other.parts for cell in row.parts]
        if len(one.parts) != len(other.parts) or len(cells) != len(theirs):
            return undecided("they have different numbers of cases") if one.name == "cases" else FALSE
        verdict = _all(same(a, b, how) for a, b in zip(cells, theirs, strict=True))
        settled = verdict.correct is not False or one.name == "matrix"
        return verdict if settled else undecided(f"they are {one.name} that differ")
    if other.kind == "tuple" and 1 in (len(one.parts), len(one.parts[0].parts)) and one.name == "matrix":
        alike = len(cells) == len(other.parts) and _all(map(lambda a, b: same(a, b, how), cells, other.parts)).correct
        return FALSE if alike is False else undecided("one is a matrix, the other a tuple")
    unwrapped = value_of(other)
    if unwrapped is not None:
        return same(one, unwrapped, how)
    if one.name == "matrix" and len(cells) > 1 and not _holds(other, ("grid",)):
        return FALSE
    return undecided("one is a matrix or a definition by cases")


# Relations, and the sets of numbers that they stand for.


def _relations(one: Node, other: Node, how: Comparison) -> Verdict:
    if other.kind != "relation":
        value = value_of(one)
        if value is not None:
            return same(value, other, how)
        if as_intervals(one) is not None and as_intervals(other) is not None:
            return _sets(one, other, how)
        if other.kind in ("tuple", "numbers", "cup", "cap", "setminus", "set", "list"):
            return undecided("one is a relation, the other a set")
        if not letters(one) and {*one.name.split()} <= {"=", "~"}:
            return undecided("one says that different numbers are equal")
        return FALSE
    ours, theirs = value_of(one), value_of(other)
    if ours is not None and theirs is not None:
        names = name_of(one), name_of(other)
        if names[0] == names[1] or None in names or any(len((name or "").split("_")[0]) > 1 for name in names):
            return same(ours, theirs, how)
    if "=" == one.name == other.name:
        verdict = _equations(one, other)
        if verdict.correct is False and ours is not None and theirs is not None and same(ours, theirs, how).correct:
            return undecided("the values have different names")
        return verdict
    if as_intervals(one) is not None and as_intervals(other) is not None:
        if only_letter(one) != only_letter(other):
            return undecided("the variables have different names") if _sets(one, other, how).correct else FALSE
        return _sets(one, other, how)
    return _in_order(one, other, how)


def _in_order(one: Node, other: Node, how: Comparison) -> Verdict:
    """Side by side, from the left or from the right; and `f > 0` by what stands on one side."""
    flipped = Node("relation", one.parts[::-1], name=" ".join(FLIPPED[sign] for sign in one.name.split()[::-1]))
    found = FALSE
    for turned in (one, flipped):
        if turned.name == other.name and len(turned.parts) == len(other.parts):
            verdict = _all(same(a, b, how) for a, b in zip(turned.parts, other.parts, strict=True))
            if verdict.correct:
                return verdict
            found = verdict if verdict.correct is None else found
            if len(turned.parts) == 2 and turned.name in ("<", ">", "<=", ">=", "!="):
                ratio = _ratio(turned, other)
                if ratio is not None and (ratio > 0 or turned.name == "!="):
                    return TRUE
    signs = {*one.name.split()} | {*other.name.split()}
    if signs & {"==", "in", "~"} and found.correct is False:
        return undecided("they are relations of other kinds")
    return found


def _ratio(one: Node, other: Node) -> Number | None:
    """What one side of a relation is a multiple of the other by, None where it is none."""
    factor = None
    n_seen = 0
    for a, b in pairs(difference(one), difference(other), Interpretation()):
        if b == 0 or a == 0:
            if a != b:
                return None
            continue
        quotient = (
            a / b
            if isinstance(a, Fraction) and isinstance(b, Fraction)
            else context(DIGITS).convert(inexact(a)) / inexact(b)
        )
        if factor is not None and not agree(factor, quotient):
            return None
        factor = quotient
        n_seen += 1
    return factor if n_seen > 1 else None


def _equations(one: Node, other: Node) -> Verdict:
    if _ratio(one, other) is not None:
        return TRUE
    if letters(one) != letters(other):
        return FALSE
    if any(_holds(node, ("root", "call")) or _divides(node) for node in (one, other)):
        return undecided("they are equations that are no multiples")
    return FALSE


def _holds(node: Node, kinds: tuple[str, ...]) -> bool:
    return node.kind in kinds or any(_holds(part, kinds) for part in node.parts)


def _divides(node: Node) -> bool:
    """Whether a letter stands below a fraction line."""
    return (node.kind == "div" and bool(letters(node.parts[1]))) or any(map(_divides, node.parts))


def _sets(one: Node, other: Node, how: Comparison) -> Verdict:
    """Whether two sets of real numbers are one."""
    if not how.relations_as_sets and (one.kind == "relation") != (other.kind == "relation"):
        return FALSE
    ours, theirs = as_intervals(one), as_intervals(other)
    if ours and other.kind in SCALARS:
        return FALSE if len(ours) > 1 or one.kind == "numbers" else undecided("one is a set of numbers")
    if ours is None or theirs is None or len(ours) != len(theirs):
        return FALSE if ours is not None and theirs is not None else undecided("one is a set of another kind")
    return _all(
        FALSE if a.closed != b.closed else _all((same(a.low, b.low, how), same(a.high, b.high, how)))
        for a, b in zip(ours, theirs, strict=True)
    )


_RULES: Mapping[str, Callable[[Node, Node, Comparison], Verdict]] = {
    "ldots": lambda one, other, how: undecided("dots stand for members"),
    "phrase": _phrases, "list": _lists, "set": _lists, "relation": _relations, "quantity": _quantities,
    "words": _worded,
    "tuple": _tuples, "cup": _sets, "cap": _sets, "setminus": _sets, "numbers": _sets, "grid": _grids,
    "residue": _residues, "based": _based, "ratio": _ratios,
}  # fmt: skip
_RANKS = {kind: rank for rank, kind in enumerate(_RULES)}
"""The rule of the kind that stands first decides."""


# Keys.
