"""Numbers as answers write them: `1,234.50`, `10{,}000`, `$5`, `5 apples`, `1.8 billion`, `1 1/2`, `2e-3`."""

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?:\\?\$|[€£])?\s*(?P<sign2>[-+]?)"
    r"(?:(?:(?P<whole>\d+)\s+)?(?P<top>\d+)\s*/\s*(?P<bottom>0*[1-9]\d*)"
    r"|(?P<digits>(?:[1-9]\d{0,2}(?:[ ,]\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?P<power>[eE][-+]?\d{1,3})?)(?:\\?\$|[€£])?",
    re.ASCII,
)
# Behind the number: `{kg}`, `\text{ square units}`, ` apples`, ` cm^2`.
_BEHIND = re.compile(
    r"(?:\s*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<text>[A-Za-z. ]+)\}|\s*\{(?P<braced>[A-Za-z ]+)\}"
    r"|\s+(?P<words>[A-Za-z]{2,}(?: [A-Za-z]+)*))\s*(?:\^\s*\{?[23]\}?|[²³])?"
)
_SPACES = re.compile(r"\\[!,;: ]|~|\u00a0")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SHORT_UNITS = {"cm", "ft", "hr", "in", "kg", "km", "lb", "mg", "mi", "ml", "mm", "oz"}
_NOT_UNITS = {"and", "mod", "percent", "pi", "sqrt"}
_MAX_CHARACTERS = 1000  # Python refuses to read much longer whole numbers


def number(text: str) -> Fraction | None:
    """The number that the whole text is, None where it is not one; thousands apart by commas or spaces."""
    text = _simplified(text)
    found = _NUMBER.fullmatch(text)
    return _value(found) if found else None


def quantity(text: str) -> Fraction | None:
    """The number before a unit or a word such as `million`, None where the text is not that."""
    text = _simplified(text)
    found = _NUMBER.match(text)
    behind = _BEHIND.fullmatch(text, found.end()) if found else None
    if found is None or behind is None:
        return None
    first, *_ = (behind["text"] or behind["braced"] or behind["words"]).lower().split() or [""]
    if first in _SCALES:
        return _value(found) * _SCALES[first]
    if first in _NOT_UNITS or (behind["words"] and len(first) == 2 and first not in _SHORT_UNITS):
        return None
    return _value(found)


def _simplified(text: str) -> str:
    if len(text) > _MAX_CHARACTERS:
        return ""
    return _SPACES.sub("", text.replace("{,}", ",").replace(",\\!", ",").replace("−", "-")).strip()


def _value(found: re.Match[str]) -> Fraction:
    if found["digits"]:
        value = Fraction(re.sub("[ ,]", "", found["digits"]) + (found["power"] or ""))
    else:
        value = int(found["whole"] or 0) + Fraction(int(found["top"]), int(found["bottom"]))
    return -value if "-" in (found["sign"], found["sign2"]) else value
