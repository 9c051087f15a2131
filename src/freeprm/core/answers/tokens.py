r"""The tokens of an answer: LaTeX, plain code and Unicode in one alphabet, with nothing dropped but layout.

`\dfrac` is `\frac`, `≤` is `\le`, `x²` is `x^{2}`, `pi` is `\pi`, `1{,}000` and `0.\overline{3}` are one number each. A
character that begins no token is an error, so that nothing is overlooked.
"""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from freeprm.core.answers.units import UNITS, is_word


class ParseError(ValueError):
    """The text is not wholly in the language of answers, or is ambiguous; says where."""


class Token(NamedTuple):
    """A symbol of the language."""

    kind: str
    """number, letter, word, command, or for operators and brackets the character itself."""
    text: str
    spaced: bool = False
    """Whether white space is before it."""
    value: Fraction | None = None
    """Of a number."""
    places: int | None = None
    """Decimal places of a number, None for a whole one."""


_CHARACTERS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "∙": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "…": "...",
    "⋯": "...", "′": "'", "″": "''", "’": "'", "∶": ":", "：": ":", "，": ",", "；": ";", "∖": r"\setminus ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ", "τ": r"\tau ", "ρ": r"\rho ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ", "₹": r"\rupee ",
    "€": r"\euro ", "£": r"\pound ", "¥": r"\yen ", "¢": r"\text{ cents}", "℃": r"^\circ\text{C}",
})  # fmt: skip
_SUPERSCRIPTS, _PLAIN_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n"
_SUBSCRIPTS, _PLAIN_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉", "0123456789"
_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_LOWERED = re.compile(f"[{_SUBSCRIPTS}]+")
_LOWER = str.maketrans(_SUBSCRIPTS, _PLAIN_SUBSCRIPTS)
_RAISE = str.maketrans(_SUPERSCRIPTS, _PLAIN_SUPERSCRIPTS)

_ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le",
    "leqslant": "le", "geq": "ge", "geqslant": "ge", "lt": "<", "gt": ">", "neq": "ne", "times": "*", "cdot": "*",
    "ast": "*", "div": "/", "colon": ":", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]",
    "lvert": "|", "rvert": "|", "vert": "|", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots",
    "varnothing": "emptyset", "backslash": "setminus", "bar": "overline", "varphi": "phi", "varepsilon": "epsilon",
    "land": "and", "wedge": "and", "lor": "or", "vee": "or", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "lg": "log", "approxeq": "approx", "simeq": "approx", "bmod": "mod", "bold": "mathbf", "boldsymbol": "mathbf",
    "R": "reals", "thickapprox": "approx", "prime": "'",
}  # fmt: skip
_CODE = {
    name: name
    for name in str.split("""
    pi sqrt exp log ln sin cos tan sec csc cot asin acos atan sinh cosh tanh abs max min gcd lcm floor ceil factorial
    theta alpha beta lambda phi infty mod pm frac
""")
} | {
    "oo": "infty", "inf": "infty", "infinity": "infty", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "Abs": "abs", "ceiling": "ceil", "binomial": "choose",
}  # fmt: skip
_NOT_CODE_IN_TEXT = {"max", "min", "abs", "log", "sec", "mod", "inf", "pm", "beta", "alpha"}
_LAYOUT = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|mathstrut|hspace\{[^{}]*\})"
    r"(?![a-zA-Z])\.?|\\[hv]?phantom(?:\{[^{}]*\}|(?![a-zA-Z]))|\\(?=[()\[\]])"
)
_SPACE = re.compile(r"(?:\\[!,;:> ]|\\q?quad|\\(?:thinspace|enspace|space)(?![a-zA-Z])|[\s~\u00a0\u2009\u202f])+")
_TEXT = re.compile(
    r"\\(?P<how>text(?:bf|rm|it|normal|sf|tt)?|mbox|mathrm|operatorname\*?|mathbf|mathit|mathsf|textnormal|mathcal|vec)"
    r"\s*\{(?P<inside>(?:[^{}]|\{[^{}]*\})*)\}"
)
_THOUSANDS_SURE = r"\d{1,3}(?:(?:\s?\{\s*,\s*\}|,\\!\s*|\\,|\\ )\d{3})+(?!\d)"
_THOUSANDS = r"[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)(?!,?\d)|[1-9]\d?(?:,\d{2})+,\d{3}(?!,?\d)"
_TAIL = (
    r"(?:\.(?P<once>\d*)(?:\\(?:overline|bar)\s*(?:\{\s*(?P<over>\d+)\s*\}|(?P<over1>\d))|\((?P<paren>\d+)\)"
    r"|\\dot\s*\{?(?P<dot>\d)\}?(?:(?P<between>\d*)\\dot\s*\{?(?P<dot2>\d)\}?)?)"
    r"|\.(?P<shown>\d+)\s*(?:\.{2,}|\\[lc]?dots[bc]?(?![a-zA-Z]))"
    r"|(?P<decimals>\.\d*)?(?P<power>[eE][-+]?\d{1,3}(?!\d))?)"
)
_NUMBER = re.compile(rf"(?P<whole>{_THOUSANDS_SURE}|{_THOUSANDS}|\d+|(?=\.\d)|(?=\.\\))" + _TAIL, re.ASCII)
_NUMBER_IN_LIST = re.compile(rf"(?P<whole>{_THOUSANDS_SURE}|\d+|(?=\.\d)|(?=\.\\))" + _TAIL, re.ASCII)
_ORDINAL = re.compile(
    r"(?<=\d)\s*(?:\^\s*)?\{?\s*(?:\\(?:text|mathrm|textrm|mbox)\s*\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}(?![a-zA-Z])"
)
_BRACED_UNIT = re.compile(r"(?<=\d)\s*\{([A-Za-z][A-Za-z ]+)\}")  # `5.0{kg}`
_OPERATOR = re.compile(r"\*\*|<=|>=|!=|==|=>|->|\.{3}|\\\\|\\[{}$%&#|]|[-+*/^_(){}\[\]|!,;:=<>&'%$.]")
_LONGEST = 2_000  # characters
_DIGITS = 1_000  # of a number; Python refuses much longer ones


def tokenise(text: str) -> list[Token]:
    """The tokens of an answer; a ParseError for a character that begins none, or too long a text."""
    if len(text) > _LONGEST:
        raise ParseError(f"has more than {_LONGEST:,} characters")
    found: list[Token] = []
    _scan(_plain(text), found, prose=False)
    return found


def _plain(text: str) -> str:
    text = _RAISED.sub(lambda run: f"^{{{run[0].translate(_RAISE)}}}", text)
    text = _LOWERED.sub(lambda run: f"_{{{run[0].translate(_LOWER)}}}", text)
    if not text.isascii():
        text = "".join(map(_vulgar, text)).translate(_CHARACTERS)
        text = unicodedata.normalize("NFKC", text)
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)
    if len(re.findall(r"(?<!\\)\$", text)) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    text = _BRACED_UNIT.sub(r" \\text{\1}", text.removesuffix("\\"))
    return _ORDINAL.sub(" ", _LAYOUT.sub(lambda found: "" if found[0] == "\\" else " ", text))


def _vulgar(character: str) -> str:
    """`½` as ` 1⁄2`, so that `1½` is a mixed number."""
    parts = unicodedata.decomposition(character)
    return f" {unicodedata.normalize('NFKC', character)} " if parts.startswith("<fraction>") else character


def _scan(text: str, found: list[Token], *, prose: bool) -> None:
    """Append the tokens of a text; in `prose`, the inside of `\\text{}`, letters are words."""
    at, spaced = 0, False
    brackets = [token.kind for token in found if token.kind in _BRACKETS]
    while at < len(text):
        if space := _SPACE.match(text, at):
            follows = found and found[-1].kind == "number" and _SURE_GROUP.match(text, at)
            if follows:
                raise ParseError("has digits in groups that are not of three")
            at, spaced = space.end(), True
            continue
        first = text[at]
        if first.isdigit() or (first == "." and (text[at + 1 : at + 2].isdigit() or text.startswith("\\over", at + 1))):
            pattern = _NUMBER_IN_LIST if _in_list(found, brackets) else _NUMBER
            number = pattern.match(text, at)
            if number is None:
                raise ParseError(f"holds {first!r}, which is not read")
            found.append(_number(number, spaced=spaced))
            at = number.end()
        elif first.isascii() and first.isalpha():
            run = re.match(r"[A-Za-z]+(?:-[A-Za-z]{3,})*(?:'[a-z]+)?" if prose else r"[A-Za-z]+", text[at:])
            word = run[0] if run else first
            if dotted := re.match(
                r"(?:[AaPp]\.\s?[Mm]|[Ii]\.e|[Ee]\.g|U\.S)(?![a-zA-Z])\.?|(?:sq|cu|ft|lbs?|oz|hrs?)\.", text[at:]
            ):
                word = dotted[0]
            if not prose and re.match(r"[A-Za-z][a-z]+'[a-z]{1,2}\b", text[at:]):
                word += text[at + len(word) :].split()[0][:3].rstrip(".,;")
            _letters(word, found, spaced=spaced, prose=prose, alone=text.strip() == word,
                     ends=_ends_as_unit(text, at, found, spaced=spaced))  # fmt: skip
            at += len(word)
        elif inner := _TEXT.match(text, at):
            _styled(inner, found, spaced=spaced)
            at = inner.end()
        elif environment := re.match(r"\\(begin|end)\s*\{(\w+)\*?\}", text[at:]):
            found += [Token("command", environment[1], spaced), Token("environment", environment[2])]
            at += environment.end()
        elif command := re.match(r"\\([a-zA-Z]+)", text[at:]):
            name = _ALIASES.get(command[1], command[1])
            kind = name if not name.isalpha() else "command"
            found.append(Token(kind, name, spaced))
            at += command.end()
        elif operator := _OPERATOR.match(text, at):
            kind = operator[0]
            found.append(Token({"**": "^", "==": "=", "...": "ldots"}.get(kind, kind), kind, spaced))
            if kind in _BRACKETS:
                brackets.append(kind)
            at = operator.end()
        else:
            raise ParseError(f"holds {first!r}, which is not read")
        spaced = False


_BRACKETS = {"(": 1, "[": 1, "\\{": 1, "{": 0, ")": 2, "]": 2, "\\}": 2, "}": 2}
_SURE_GROUP = re.compile(r"\\,\d{1,2}(?!\d)")


def _in_list(found: list[Token], brackets: list[str]) -> bool:
    """Whether commas separate items inside the innermost open bracket: any but a brace."""
    opened: list[str] = []
    for kind in brackets:
        if _BRACKETS[kind] == 2:
            if opened:
                opened.pop()
        else:
            opened.append(kind)
    return bool(opened) and opened[-1] != "{"


def _number(found: re.Match[str], *, spaced: bool) -> Token:
    whole = re.sub(r"\D", "", found["whole"])
    if len(found[0]) > _DIGITS:
        raise ParseError(f"has a number of more than {_DIGITS:,} digits")
    over = found["over"] or found["over1"] or found["paren"] or found["dot"]
    once = found["once"] or ""
    if found["dot2"]:
        over = f"{over}{found['between']}{found['dot2']}"
    if found["shown"]:
        once, over = _period(found["shown"])
    if over:
        value = Fraction(
            int(whole + once + over or "0") - int(whole + once or "0"), 10 ** len(once + over) - 10 ** len(once)
        )
        return Token("number", found[0], spaced, value)
    decimals = (found["decimals"] or "")[1:]
    value = Fraction(f"{whole or '0'}.{decimals or '0'}{found['power'] or ''}")
    power = int((found["power"] or "e0")[1:])
    places = max(len(decimals) - power, 0) if decimals or power < 0 else None
    return Token("number", found[0], spaced, value, places)


def _period(digits: str) -> tuple[str, str]:
    """Decimals before three dots as (prefix, period), `1666` as (`1`, `6`): the shortest period that is repeated."""
    if len(digits) >= 2 and len({*digits}) == 1:
        return "", digits[0]
    for length in range(1, len(digits) // 2 + 1):
        end = digits[-length:]
        if digits.endswith(end * (3 if length == 1 else 2)):
            start = len(digits)
            while digits[:start].endswith(end):
                start -= length
            return digits[:start], end
    raise ParseError("has decimals that go on, and not in a way that can be told")


def _letters(word: str, found: list[Token], *, spaced: bool, prose: bool, alone: bool, ends: bool) -> None:
    """Append a run of letters: a function or constant, `and`, a word or unit, or a product of letters."""
    before = found[-1] if found else None
    known = _CODE.get(word)
    if known is not None and not (prose and word in _NOT_CODE_IN_TEXT):
        found.append(Token("command", known, spaced))
    elif word.lower() in ("and", "or") and not word.istitle():
        found.append(Token("command", word.lower(), spaced))
    elif len(word) == 1:
        measured = before is not None and (before.kind in ("number", "}", ")") or before.text in ("circ", "pi"))
        behind_unit = (
            before is not None and before.kind in ("word", "/") and any(token.kind == "word" for token in found)
        )
        unit = word in UNITS and (measured or behind_unit) if prose else ends and (measured or behind_unit)
        found.append(Token("word" if unit or (prose and not alone) else "letter", word, spaced))
    elif (
        prose
        or "." in word
        or (spaced and before is not None and before.kind == "word" and len(word) > 2 and word.islower())
        or is_word(word, behind_number=before is not None and (spaced or before.kind in ("number", "}", "/")))
    ):
        found.append(Token("word", word, spaced))
    elif word.endswith("pi") and len(word) <= 3:
        found.extend([*(Token("letter", letter, spaced) for letter in word[:-2]), Token("command", "pi")])
    else:
        found.extend(Token("letter", letter, spaced and index == 0) for index, letter in enumerate(word))


_LAST_UNIT = re.compile(r"[mgshLlNJWV](?:\s*(?:\^\s*)?(?:\{-?\d\}|\d)?)?(?:\s*/.{1,12}|\s*[.,]?\s*)", re.DOTALL)


def _ends_as_unit(text: str, at: int, found: list[Token], *, spaced: bool) -> bool:
    """Whether a letter may be a unit at the end: the `m` of `12 m` or `12 m^2`; `12m` may be a product."""
    apart = spaced or any(token.kind == "word" for token in found)
    return apart and _LAST_UNIT.fullmatch(text, at) is not None


def _styled(inner: re.Match[str], found: list[Token], *, spaced: bool) -> None:
    r"""Append `\text{...}` and the like: a letter, the name of a function, or prose."""
    inside, how = inner["inside"], inner["how"]
    name = _CODE.get(inside.strip(), "")
    called = inner.string[inner.end() :].lstrip()[:1] == "("
    if name and not (inside.strip() in _NOT_CODE_IN_TEXT and not called and not how.startswith("operatorname")):
        found.append(Token("command", name, spaced))
        return
    styled = how in ("mathrm", "mathbf", "mathit", "mathcal", "mathsf", "vec")
    if re.fullmatch(r"\s*[A-Za-z]\s*", inside):
        letter = inside.strip()
        based = inner.string[inner.end() :].lstrip()[:1] == "_"
        if (
            based
            or not (letter in UNITS and found and found[-1].kind in ("number", "}", ")", "word", "command"))
            or letter in "ei"
        ):
            found.append(
                Token("letter", letter if styled or how.startswith(("text", "mbox", "op")) else inside, spaced)
            )
            return
    if inner.string[inner.end() :].lstrip()[:1] == "_":  # `\\text{1A}_{16}`
        _scan(inside, found, prose=False)
        return
    mark = len(found)
    _scan(f" {inside} " if spaced or inside[:1].isspace() else inside, found, prose=True)
    if len(found) > mark and spaced:
        found[mark] = found[mark]._replace(spaced=True)
