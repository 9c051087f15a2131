"""What words around a number mean: units by size and dimension, scales, percent, and words that change its meaning.

A unit that only one of two answers has is overlooked, as is a noun (`5 apples`); two different ones are not.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple


def word_set(text: str) -> frozenset[str]:
    """The words of a text, for tables that would be long with a quote at each."""
    return frozenset(text.split())


class Unit(NamedTuple):
    """What stands around a number."""

    scale: Fraction = Fraction(1)
    """In base units, e.g. 1/100 for cm."""
    offset: Fraction = Fraction(0)
    """Added after scaling, for degrees Celsius and Fahrenheit."""
    dimensions: tuple[tuple[str, int], ...] = ()
    """Base units with their exponents, sorted."""
    nouns: frozenset[str] = frozenset()
    """Other words, singular."""
    qualifiers: frozenset[str] = frozenset()
    """Words behind the number, or bounds before it, that give it another meaning: `PM`, `profit`, `at least`."""
    leading: frozenset[str] = frozenset()
    """Such words before the number, which tell what it is."""

    @property
    def empty(self) -> bool:
        return self == Unit()


_Size = tuple[Fraction, Mapping[str, int]]


def _table(*rows: tuple[str, str, Fraction | int | str]) -> dict[str, _Size]:
    """Rows of names, dimension such as `m` or `m^2`, and size."""
    return {
        name: (Fraction(size), {dimension.partition("^")[0]: int(dimension.partition("^")[2] or 1)})
        for names, dimension, size in rows
        for name in names.split()
    }


UNITS: Mapping[str, _Size] = _table(
    ("m meter metre", "m", 1), ("cm centimeter centimetre", "m", "0.01"), ("mm millimeter millimetre", "m", "0.001"),
    ("km kilometer kilometre", "m", 1000), ("dm decimeter", "m", "0.1"), ("in inch", "m", "0.0254"),
    ("ft foot feet", "m", "0.3048"), ("yd yard", "m", "0.9144"), ("mi mile", "m", "1609.344"),
    ("kg kilogram kilo", "kg", 1), ("g gram gm", "kg", "0.001"), ("mg milligram", "kg", "0.000001"),
    ("lb pound", "lb", 1), ("oz ounce", "lb", "1/16"), ("ton tonne", "ton", 1),
    ("s sec second", "s", 1), ("ms millisecond", "s", "0.001"), ("min minute", "s", 60), ("h hr hour", "s", 3600),
    ("day", "s", 86400), ("week", "s", 604800), ("month", "month", 1), ("year yr", "month", 12),
    ("decade", "month", 120), ("century", "month", 1200),
    ("dollar usd buck", "dollar", 1), ("cent penny", "dollar", "0.01"), ("nickel", "dollar", "0.05"),
    ("dime", "dollar", "0.1"), ("euro", "euro", 1), ("rupee", "rupee", 1), ("yen", "yen", 1), ("yuan", "yuan", 1),
    ("peso", "peso", 1), ("pence", "lb", "0.01"),
    ("l L liter litre", "m^3", "0.001"), ("ml mL milliliter millilitre cc", "m^3", "0.000001"),
    ("gallon gal", "gallon", 1),
    ("quart", "gallon", "1/4"), ("pint", "gallon", "1/8"), ("cup", "gallon", "1/16"), ("tablespoon", "gallon", "1/256"),
    ("teaspoon", "gallon", "1/768"), ("acre", "acre", 1), ("hectare", "m^2", 10000),
    ("radian rad", "radian", 1), ("degree deg", "degree", 1), ("unit", "unit", 1),
    ("N newton", "newton", 1), ("J joule", "joule", 1), ("kJ kilojoule", "joule", 1000), ("W watt", "watt", 1),
    ("kW kilowatt", "watt", 1000), ("V volt", "volt", 1), ("K kelvin", "kelvin", 1), ("Hz hertz", "hertz", 1),
    ("A ampere amp", "ampere", 1), ("mol mole", "mole", 1), ("Pa pascal", "pascal", 1), ("kPa", "pascal", 1000),
    ("celsius C", "kelvin", 1), ("fahrenheit F", "kelvin", "5/9"), ("calorie cal", "calorie", 1),
    ("MB megabyte", "byte", 1000000), ("GB gigabyte", "byte", 1000000000), ("KB kB kilobyte", "byte", 1000),
    ("byte", "byte", 1),
)  # fmt: skip
"""Name -> size in base units, and dimension."""
_RATES: Mapping[str, _Size] = {
    "mph": (Fraction("0.44704"), {"m": 1, "s": -1}),
    "kph": (Fraction(5, 18), {"m": 1, "s": -1}),
}
_OFFSETS = dict.fromkeys(("celsius", "C"), Fraction("273.15")) | dict.fromkeys(
    ("fahrenheit", "F"), Fraction("459.67") * Fraction(5, 9)
)
SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "lakh": 10**5, "crore": 10**7, "hundreds": 10**2, "thousands": 10**3, "millions": 10**6, "billions": 10**9,
}  # fmt: skip
MONEY = ("euro", "rupee", "yen", "pound")
_PERCENT = {"percent", "percentage", "pct", "percents"}
_COUNTED = str.split("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
""")
_TENS = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
NUMBER_WORDS = {name: value for value, name in enumerate(_COUNTED)} | _TENS | {"hundred": 100}
_QUALIFIERS = word_set("""
    am pm profit loss gain lose lost win won north south east west northeast northwest southeast southwest up down left
    right forward backward more less fewer greater smaller larger bigger shorter longer taller faster slower higher
    lower cheaper older younger earlier later increase decrease increased decreased rise fall drop above below over
    under clockwise counterclockwise anticlockwise before after debt surplus deficit positive negative not odd even
    least most noon midnight except remaining discount off remainder january february march april may june july august
    september october november december monday tuesday wednesday thursday friday saturday sunday outside inside inward
    outward upward downward extra short real complex imaginary modulo squared cubed factorial plus minus times divided
    almost nearly half third quarter double twice triple
""")
_BOUNDS = word_set("""
    least most more less fewer over under greater not exceed exceeds almost nearly between negative minus half third
    quarter double twice triple before after except above below
""")
_IGNORED = word_set("""
    a an the of in is are be was were to it its he she they we you i that this which there will would should must can
    has have had for at on by per each every so thus hence therefore answer final result value total altogether all
    about approximately approx around roughly exactly equals equal only just unit way s
""")
REASONS = word_set("""
    since because so as which that hence thus therefore where when given i.e e.g meaning making
""")
"""Words that begin a reason, which is no part of an answer."""
_SHORT = _PERCENT | word_set("""
    our his her its has had was may can get got who how why new old won per no yes odd all any one two six ten the is
    are so if for of at to by be it he she we as not only far few men boy boys cat cats dog dogs egg eggs day days car
    cars pen pens box bag way ways red an
""")
_LETTER_UNITS = word_set("ab mi mg ms min gal cal in cc gm rad deg mol yen amp")


def is_word(run: str, *, behind_number: bool) -> bool:
    """Whether letters in a row are a word, and not a product of variables."""
    low = run.lower()
    if run.isupper() and len(run) == 2 and run not in ("PM", "AM", "MB", "GB", "KB"):
        return False
    if run.isupper() and len(run) > 2 and low not in UNITS and low not in _QUALIFIERS:
        return run in ("USD", "AND", "NOT", "NONE", "YES", "TRUE", "FALSE") or len(run) > 6
    if behind_number and (singular(run) in UNITS or low in _RATES or low in _QUALIFIERS or low in SCALES):
        return True
    if low in _LETTER_UNITS or run in ("PM", "AM"):
        return False
    return len(run) >= 4 or low in _SHORT or low in REASONS or (len(run) > 2 and low in _QUALIFIERS)


def singular(word: str) -> str:
    """`inches` -> `inch`; a name that is one already stays, in its own case where that tells units apart."""
    if word in UNITS:
        return word
    low = word.lower()
    if low in UNITS:
        return low
    for end, instead in (("ies", "y"), ("es", ""), ("s", "")):
        if low.endswith(end) and low[: -len(end)] + instead in UNITS:
            return low[: -len(end)] + instead
    if len(low) > 3 and low.endswith("s") and not low.endswith("ss"):
        return low[:-1]
    return low


class Words(NamedTuple):
    """What words do to a number."""

    factor: Fraction
    """1000 for `thousand`."""
    percent: bool
    unit: Unit
    """What remains."""


def measured(behind: Sequence[str], before: Sequence[str]) -> Words:
    """What words around a number do to it.

    Args:
        behind: the tokens behind it: words, and `^`, `/` and whole numbers of units.
        before: the words before it.
    """
    factor, percent = Fraction(1), False
    scale, offset, dimensions = Fraction(1), Fraction(0), dict[str, int]()
    nouns, qualifiers, leading = set[str](), set[str](), set[str]()
    power, sign, position = 1, 1, 0
    last: tuple[str, int] | None = None  # the last unit, and its exponent so far
    while position < len(behind):
        word = behind[position]
        low = _plain(word)
        position += 1
        name = singular(word.rstrip("."))
        if low == "per" and behind[position : position + 1] == ["cent"]:
            percent = True
            position += 1
        elif word == "/" or low == "per":
            sign = -1
        elif word == "^" and position < len(behind):
            if last is not None:  # the factor was taken once already
                exponent = int(behind[position]) * last[1]
                scale *= _times(dimensions, UNITS[last[0]], exponent - last[1])
            position += 1
        elif low in ("square", "sq", "cubic", "cu"):
            power = 2 if low.startswith("sq") else 3
        elif low in SCALES and not dimensions:
            factor *= SCALES[low]
        elif low in _PERCENT:
            percent = True
        elif low in _RATES:
            scale *= _times(dimensions, _RATES[low], 1)
        elif name in UNITS and not (low == "in" and (dimensions or nouns or position < len(behind))):
            exponent = sign * power
            scale *= _times(dimensions, UNITS[name], exponent)
            offset = _OFFSETS.get(name, Fraction(0)) if exponent == 1 else Fraction(0)
            last, power = (name, exponent), 1
        elif low in _QUALIFIERS:
            qualifiers.add(low)
        elif low not in _IGNORED and low not in ("*", ""):
            nouns.add(name)
    for low in map(_plain, before):
        if low in _BOUNDS:
            qualifiers.add(low)
        elif {low, low.removesuffix("s"), low.removesuffix("es")} & _QUALIFIERS:
            leading.add(low)
        elif low in ("dollar", *MONEY):
            scale *= _times(dimensions, UNITS[low], 1)
        elif low not in _IGNORED:
            nouns.add(singular(low))
    if "kelvin" in dimensions:
        dimensions.pop("degree", None)  # degrees Celsius
    kept = tuple(sorted((base, exponent) for base, exponent in dimensions.items() if exponent))
    unit = Unit(scale, offset, kept, frozenset(nouns), frozenset(qualifiers), frozenset(leading))
    return Words(factor, percent, unit)


def _plain(word: str) -> str:
    return word.lower().replace(".", "").replace("'s", "")


def _times(dimensions: dict[str, int], unit: _Size, exponent: int) -> Fraction:
    """Multiply dimensions by a power of a unit; the factor that this is in base units."""
    size, powers = unit
    for base, power in powers.items():
        dimensions[base] = dimensions.get(base, 0) + power * exponent
    return size**exponent
