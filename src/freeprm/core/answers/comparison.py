r"""Whether two parsed answers are equivalent.

Equivalent: `x = 5` and `5`; `1, 2` and `\{2, 1\}`; `0 < x < 1` and `(0, 1)`; `20\%` and 20, or 0.2; a number with a
unit or a noun and one without. Not equivalent: a set and a pair, two units, two names, `3` PM and `3` AM.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from freeprm.core.answers.relations import (
    FLIPPED,
    SCALARS,
    as_intervals,
    measured_part,
    name_of,
    names_of,
    only_letter,
    value_of,
    without_names,
)
from freeprm.core.answers.scalars import (
    FALSE,
    TRUE,
    AnswerComparison,
    Verdict,
    all_of,
    compare_equations,
    compare_scalars,
    compare_values,
    holds_sign,
    places_of,
    ratio,
    undecided,
)
from freeprm.core.answers.tree import Node, holds, num
from freeprm.core.answers.units import Unit, singular, word_set
from freeprm.core.answers.values import Interpretation, letters

_LONGEST_LIST = 60
_UNSURE_WORDS = word_set("none zero nothing undefined empty infinite infinitely dne exist nonexistent")
_STEMS = ("gain", "los", "win", "won", "increas", "decreas", "profit")


def compare(pred: Node, gold: Node, how: AnswerComparison) -> Verdict:
    """Whether two answers are equivalent."""
    if pred == gold:
        return TRUE
    first, second = _RANKS.get(pred.kind, len(_RANKS)), _RANKS.get(gold.kind, len(_RANKS))
    one, other = (pred, gold) if first <= second else (gold, pred)
    return _RULES.get(one.kind, compare_scalars)(one, other, how)


def _side_by_side(ours: Iterable[Node], theirs: Iterable[Node], how: AnswerComparison) -> Verdict:
    return all_of(compare(a, b, how) for a, b in zip(ours, theirs, strict=False))


# Units, words, bases, ratios.


def _quantities(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    (a, ours), (b, theirs) = measured_part(one), measured_part(other)
    if theirs.empty or ours.empty:
        unit = ours if theirs.empty else theirs
        if unit.qualifiers:
            return _differ(a, b, how, f"one alone has the words {_listed(unit.qualifiers)}")
        if any(base == "radian" for base, _ in unit.dimensions) and (holds_sign(a) or holds_sign(b)):
            # Beside another unit of angles, the sign of degrees counts.
            return compare_values(a, b, how, Interpretation())
        compound = "compound" in (one.name, other.name)
        return compare(a, b, how) if not compound else undecided("one is in several units")
    if not _qualified_alike(ours, theirs):
        if ours.qualifiers and theirs.qualifiers and not ours.qualifiers & theirs.qualifiers:
            return FALSE
        return _differ(a, b, how, f"they differ in the words {_listed(ours.qualifiers ^ theirs.qualifiers)}")
    if ours.dimensions != theirs.dimensions and ours.dimensions and theirs.dimensions:
        bases = [{base for base, _ in unit.dimensions} for unit in (ours, theirs)]
        if bases[0] == bases[1]:
            return _differ(a, b, how, "they differ in the exponents of their units")
        # `15 square units` does not contradict `15 cm^2`
        return compare(a, b, how) if {"unit"} in bases else FALSE
    if not (ours.nouns <= theirs.nouns or theirs.nouns <= ours.nouns):
        return _differ(a, b, how, f"they differ in the words {_listed(ours.nouns ^ theirs.nouns)}")
    if ours.dimensions != theirs.dimensions or (ours.scale, ours.offset) == (theirs.scale, theirs.offset):
        return compare(a, b, how)
    return compare(in_base_units(a, ours), in_base_units(b, theirs), how)


def _qualified_alike(ours: Unit, theirs: Unit) -> bool:
    mine, yours = ours.qualifiers | ours.leading, theirs.qualifiers | theirs.leading
    if set(map(stem, mine)) == set(map(stem, yours)):
        return True
    return not (ours.qualifiers or theirs.qualifiers) and not (mine and yours)


def stem(word: str) -> str:
    """`gained` and `gains` are `gain`."""
    return next((name for name in _STEMS if word.startswith(name)), word)


def _differ(a: Node, b: Node, how: AnswerComparison, reason: str) -> Verdict:
    return FALSE if compare(a, b, how).correct is False else undecided(reason)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(words)))


def in_base_units(node: Node, unit: Unit) -> Node:
    """A number in a unit, converted to base units."""
    if unit.scale == 1 and not unit.offset:
        return node
    scaled = Node("mul", (num(unit.scale, places_of(node).digits and 0), node))
    return Node("add", (scaled, num(unit.offset))) if unit.offset else scaled


def _worded(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    if other.kind == "words":
        return Verdict(plain_words(one) == plain_words(other), None)
    if {*one.name.lower().split()} & _UNSURE_WORDS:
        return undecided(f"one is the words {one.name!r}, the other a formula")
    return FALSE


def plain_words(node: Node) -> list[str]:
    """Without case, plurals and articles."""
    words = (singular(word.rstrip(".")) for word in node.name.lower().split())
    return [word for word in words if word not in ("a", "an", "the")]


def _based(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    if other.kind == "based":
        if one.value == other.value:
            return Verdict(one.name == other.name, None)
        try:
            equal = int(one.name, int(one.value or 10)) == int(other.name, int(other.value or 10))
        except ValueError:
            equal = False
        return undecided("they are in different number bases") if equal else FALSE
    if other.kind == "num" and other.value is not None and other.value.denominator == 1:
        return Verdict(one.name == str(other.value), None)  # a base that only one has is ignored, like a unit
    return FALSE


def _ratios(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    if other.kind != "ratio":
        fraction = len(one.parts) == 2 and other.kind in SCALARS
        return compare(Node("div", one.parts), other, how) if fraction else FALSE
    if len(one.parts) != len(other.parts):
        return FALSE
    as_written = _side_by_side(one.parts, other.parts, how)
    if as_written.correct:
        return as_written
    ours, theirs = ([Node("div", (part, node.parts[-1])) for part in node.parts[:-1]] for node in (one, other))
    alike = _side_by_side(ours, theirs, how)
    if one.name == other.name == "clock":
        return undecided("they may be times or ratios") if alike.correct else FALSE
    return alike


def _residues(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    if other.kind == "residue" and compare(one.parts[1], other.parts[1], how).correct:
        apart = Node("add", (one.parts[0], Node("neg", (other.parts[0],))))
        return compare(Node("call", (apart, one.parts[1]), name="mod"), num(0), how)
    return undecided("they differ in a modulus")


def _phrases(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    units, theirs = ([measured_part(part)[1] for part in node.parts] for node in (one, other))
    if other.kind == "phrase" and units == theirs and one.name == other.name:
        return _side_by_side(one.parts, other.parts, how)
    if other.kind in SCALARS and (any(unit.qualifiers for unit in units) or all(unit.empty for unit in units)):
        return FALSE
    return undecided("there are several numbers among words")


# Lists, sets, tuples, matrices.


def _lists(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    if max(len(one.parts), len(other.parts)) > _LONGEST_LIST:
        return undecided(f"a list has more than {_LONGEST_LIST} members")
    if not (one.kind in ("list", "set") and other.kind == "set") and as_intervals(one) and as_intervals(other):
        return _sets(one, other, how)
    if other.kind in ("list", "set"):
        return _members(one, other, how)
    if other.kind == "tuple":
        items = without_names(one)
        if len(items) != len(other.parts) or (items and items[0].kind == "tuple") or one.kind == "set":
            return FALSE
        named = any(item.kind == "relation" for item in one.parts)
        verdict = _side_by_side(items if named else one.parts, other.parts, how)
        listed = other.name == "()" or len(other.parts) > 2  # `[1, 4]` is an interval, or a list
        return verdict if listed or verdict.correct is False else undecided("one may be an interval")
    if len(one.parts) == 1:
        return compare(one.parts[0], other, how)
    if other.kind == "relation":
        value = value_of(other)
        if value is not None and value.kind in ("list", "set", "tuple"):
            return compare(one, value, how)
        return FALSE if value is not None and one.kind == "list" else undecided("one is a list, the other a relation")
    if other.kind == "numbers" or not one.parts:
        return undecided("one is a set of another kind")
    return FALSE


def _members(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    """Compare lists and sets: by name if values have names, else in any order."""
    if any(item.kind == "ldots" for item in (*one.parts, *other.parts)):
        if len(one.parts) != len(other.parts):
            return undecided("dots stand for members")
        return _side_by_side(one.parts, other.parts, how)
    our_names, their_names = names_of(one), names_of(other)
    if our_names and {*our_names} == {*their_names} and len({*our_names}) == len(our_names):
        named = dict(zip(their_names, other.parts, strict=True))
        return _side_by_side(one.parts, [named[name] for name in our_names], how)
    ours, theirs = without_names(one), without_names(other)
    ordered = bool(our_names) != bool(their_names) and len({*our_names, *their_names}) > 1
    if ordered and len(ours) == len(theirs):
        reason = "one is a set, the other names its values"
        if "set" not in (one.kind, other.kind):
            reason = "the values are in another order"
            as_written = [[value_of(item) or item for item in node.parts] for node in (one, other)]
            for mine, yours in ((ours, theirs), as_written):
                in_order = _side_by_side(mine, yours, how)
                if in_order.correct is not False:
                    return in_order
        return undecided(reason) if _matched(ours, theirs, how).correct else FALSE
    if one.kind == other.kind == "set":
        return all_of((_contained(ours, theirs, how), _contained(theirs, ours, how)))
    verdict = _matched(ours, theirs, how)
    if len(ours) == len(theirs) or verdict.correct is not False:
        return verdict
    contained = all_of((_contained(ours, theirs, how), _contained(theirs, ours, how)))
    if contained.correct and not all(item.kind == "tuple" for item in (*ours, *theirs)):
        return undecided("one repeats a member")
    return contained  # of tuples: solutions, one of which is repeated


def _matched(ours: Sequence[Node], theirs: Sequence[Node], how: AnswerComparison) -> Verdict:
    """Whether members match one to one, in any order."""
    return FALSE if len(ours) != len(theirs) else _contained(ours, theirs, how, once=True)


def _contained(ours: Sequence[Node], theirs: Sequence[Node], how: AnswerComparison, *, once: bool = False) -> Verdict:
    """Whether each member is one of the other's; with `once`, each of those is used only once."""
    left, unsure = [*theirs], None
    for item in ours:
        verdicts = [compare(item, candidate, how) for candidate in left]
        found = next((index for index, verdict in enumerate(verdicts) if verdict.correct), None)
        if found is None:
            unsure = next((verdict for verdict in verdicts if verdict.correct is None), None)
            if unsure is None:
                return FALSE
        elif once:
            left.pop(found)
    return unsure or TRUE


def _tuples(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    if other.kind == "tuple":
        size = len(one.parts)
        if size != len(other.parts) or (one.name != other.name and size == 2):
            return FALSE
        return _side_by_side(one.parts, other.parts, how)
    if as_intervals(other) is not None:
        return _sets(one, other, how)
    return _grids(other, one, how) if other.kind == "grid" else FALSE


def _grids(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    cells = [cell for row in one.parts for cell in row.parts]
    if other.kind == "grid" and one.name == other.name:
        theirs = [cell for row in other.parts for cell in row.parts]
        if len(one.parts) != len(other.parts) or len(cells) != len(theirs):
            return undecided("they have different numbers of cases") if one.name == "cases" else FALSE
        verdict = _side_by_side(cells, theirs, how)
        settled = verdict.correct is not False or one.name == "matrix"
        return verdict if settled else undecided(f"they are {one.name} that differ")
    if other.kind == "tuple" and 1 in (len(one.parts), len(one.parts[0].parts)) and one.name == "matrix":
        alike = len(cells) == len(other.parts) and _side_by_side(cells, other.parts, how).correct
        return FALSE if alike is False else undecided("one is a matrix, the other a tuple")
    if one.name == "matrix" and len(cells) > 1 and not holds(other, "grid"):
        return FALSE
    return undecided("one is a matrix or a definition by cases")


# Relations, and the sets of numbers that they stand for.


def _relations(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    ours, theirs = value_of(one), value_of(other)
    if other.kind != "relation":
        if ours is not None:
            return compare(ours, other, how)
        if _are_sets(one, other):
            return _sets(one, other, how)
        if other.kind in ("tuple", "numbers", "cup", "cap", "setminus", "set", "list"):
            return undecided("one is a relation, the other a set")
        if not letters(one) and {*one.name.split()} <= {"=", "~"}:
            return undecided("one says that different numbers are equal")
        return FALSE
    if ours is not None and theirs is not None:
        names = name_of(one), name_of(other)
        if names[0] == names[1] or None in names or any(len((name or "").split("_")[0]) > 1 for name in names):
            return compare(ours, theirs, how)
    if "=" == one.name == other.name:
        verdict = compare_equations(one, other)
        if verdict.correct is False and ours is not None and theirs is not None and compare(ours, theirs, how).correct:
            return undecided("the values have different names")
        return verdict
    if _are_sets(one, other):
        verdict = _sets(one, other, how)
        if only_letter(one) == only_letter(other):
            return verdict
        return undecided("the variables have different names") if verdict.correct else FALSE
    return _in_order(one, other, how)


def _in_order(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    """Compare sides in order, from the left or from the right; and inequalities as multiples."""
    flipped = Node("relation", one.parts[::-1], name=" ".join(FLIPPED[sign] for sign in one.name.split()[::-1]))
    found = FALSE
    for turned in (one, flipped):
        if turned.name == other.name and len(turned.parts) == len(other.parts):
            verdict = _side_by_side(turned.parts, other.parts, how)
            if verdict.correct:
                return verdict
            found = verdict if verdict.correct is None else found
            if len(turned.parts) == 2 and turned.name in ("<", ">", "<=", ">=", "!="):
                factor = ratio(turned, other)
                if factor is not None and (factor > 0 or turned.name == "!="):
                    return TRUE
    signs = {*one.name.split()} | {*other.name.split()}
    if signs & {"==", "in", "~"} and found.correct is False:
        return undecided("they are relations of other kinds")
    return found


def _are_sets(one: Node, other: Node) -> bool:
    return as_intervals(one) is not None and as_intervals(other) is not None


def _sets(one: Node, other: Node, how: AnswerComparison) -> Verdict:
    """Whether two sets of real numbers are one."""
    if not how.relations_as_sets and (one.kind == "relation") != (other.kind == "relation"):
        return FALSE
    ours, theirs = as_intervals(one), as_intervals(other)
    if ours and other.kind in SCALARS:
        return FALSE if len(ours) > 1 or one.kind == "numbers" else undecided("one is a set of numbers")
    if ours is None or theirs is None:
        return undecided("one is a set of another kind")
    if [interval.closed for interval in ours] != [interval.closed for interval in theirs]:
        return FALSE
    our_ends, their_ends = ([end for item in found for end in (item.low, item.high)] for found in (ours, theirs))
    return _side_by_side(our_ends, their_ends, how)


_RULES: Mapping[str, Callable[[Node, Node, AnswerComparison], Verdict]] = {
    "ldots": lambda one, other, how: undecided("dots stand for members"),
    "phrase": _phrases, "list": _lists, "set": _lists, "relation": _relations, "quantity": _quantities,
    "words": _worded, "tuple": _tuples, "cup": _sets, "cap": _sets, "setminus": _sets, "numbers": _sets,
    "grid": _grids, "residue": _residues, "based": _based, "ratio": _ratios,
}  # fmt: skip
_RANKS = {kind: rank for rank, kind in enumerate(_RULES)}
"""Of two kinds, the rule of the first decides."""
