r"""An answer parsed as a tree, all of it or not at all.

    answer   := item (separator item)*            `,` `;` `and` `or`, words that give a reason end it
    item     := side (relation side)*             `=` `<` `\le` `\in` ...
    side     := words? set-expression words?      a number with its unit; several of them in a row
    ...down to numbers, letters, functions and brackets, by the usual precedence (`expressions.py`)

A text that the grammar does not account for to its last token, or that could be read in two ways, raises: an answer is
never compared by a part of it.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache

from freeprm.core.answers.expressions import Expressions, shown
from freeprm.core.answers.tokens import UnreadableError, tokens
from freeprm.core.answers.tree import Node, is_of_letters, num, spelt_out, spread
from freeprm.core.answers.units import NUMBER_WORDS, REASONS, UNITS, Unit, measured


class Brackets(Expressions):
    """See `Expressions`."""

    def bracketed(self) -> Node:
        """See `Expressions`."""
        kind = self.kind()
        if kind in ("(", "["):
            return self.brackets()
        return self.braces() if kind == "{" else self.listed("\\{", "\\}", "set")

    def begins_command(self, name: str) -> bool:
        """See `Expressions`."""
        return name in _ATOMS

    def command(self, name: str) -> Node:
        """See `Expressions`."""
        self.position += 1
        return _ATOMS[name](self)

    def brackets(self) -> Node:
        """A pair, an interval, a longer tuple, or an expression in brackets."""
        opening = self.kind()
        node = self.listed(opening, (")", "]"), "tuple")
        closing = self.tokens[self.position - 1].kind
        if (len(node.parts) == 1 and (opening, closing) == ("(", ")")) or (
            len(node.parts) == 1 and (opening, closing) == ("[", "]")
        ):
            inside = node.parts[0]
            if inside.kind in ("relation", "list", "words", "quantity", "ldots"):
                raise UnreadableError("has a relation, words or a list in brackets")
            return Node("group", (inside,)) if inside.kind in ("add", "neg", "mul", "div", "num", "pm") else inside
        if len(node.parts) != 2 and {opening, closing} == {"(", "]"}:
            raise UnreadableError("has brackets that do not match")
        return Node("tuple", node.parts, name=opening + closing)

    def braces(self) -> Node:
        """What LaTeX groups; `{1 \\over 2}`, and a list without brackets as in `{1, 3}`; `{}_5C_2`."""
        if self.kind(1) == "}" and self.kind(2) == "_":
            self.position += 3
            top = self._index()
            letter = self.take("letter").text
            self.take("_")
            bottom = self._index()
            if letter not in ("C", "P"):
                raise UnreadableError("has an index before a letter, which is not read")
            return Node("call", (top, bottom), name="choose" if letter == "C" else "permutations")
        self.open()
        self.take("{")
        items = [self.union()]
        while self.kind() == ",":
            self.position += 1
            items.append(self.union())
        if self.is_command("over"):
            self.position += 1
            items = [Node("div", (items[0], self.sum()))]
        self.take("}")
        self.depth -= 1
        if len(items) > 1:
            return Node("list", tuple(items))
        return Node("group", (items[0],)) if items[0].kind in ("add", "neg", "mul", "div", "num", "pm") else items[0]

    def _index(self) -> Node:
        return self.group() if self.kind() == "{" else self.atom()

    def listed(self, opening: str, closing: str | tuple[str, ...], kind: str) -> Node:
        self.open()
        bars, self.bars = self.bars, 0
        self.take(opening)
        items: list[Node] = []
        closings = (closing,) if isinstance(closing, str) else closing
        while self.kind() not in closings:
            if items:
                self.take(",", ";")
            items.append(self.item())
        self.position += 1
        self.bars = bars
        self.depth -= 1
        return Node(kind, tuple(spread(items) if kind == "set" else items))

    def frac(self) -> Node:
        top = self.argument()
        return Node("div", (top, self.argument()))

    def sqrt(self) -> Node:
        degree = num(2)
        if self.kind() == "[":
            self.position += 1
            degree = self.sum()
            self.take("]")
        if self.kind() == "(":
            inside = self.arguments()
            if len(inside) != 1:
                raise UnreadableError("has a root of several numbers")
            return Node("root", (inside[0], degree))
        if self.at is not None and self.at.kind == "number" and len(self.at.text) > 1:
            # `√12` is the root of 12; `\sqrt12` is that of 1, before a 2, to LaTeX
            raise UnreadableError("has a root without braces, which could be read in two ways")
        return Node("root", (self.argument(), degree))

    def binom(self) -> Node:
        top = self.argument()
        return Node("call", (top, self.argument()), name="choose")

    def floor(self) -> Node:
        node = self.sum()
        self.take("rfloor")
        return Node("call", (node,), name="floor")

    def ceil(self) -> Node:
        node = self.sum()
        self.take("rceil")
        return Node("call", (node,), name="ceil")

    def overline(self) -> Node:
        """A segment, a repeating number's digits having been read with it."""
        inside = self.group() if self.kind() == "{" else self.atom()
        if not is_of_letters(inside):
            raise UnreadableError("has a bar over what is neither decimals nor letters")
        return Node("sym", name=f"overline {spelt_out(inside)}")

    def angle(self) -> Node:
        node = self.product()
        if not is_of_letters(node):
            raise UnreadableError("holds '\\\\angle' before what is no name")
        return Node("sym", name=f"angle {spelt_out(node)}")

    def triangle(self) -> Node:
        node = self.product()
        if not is_of_letters(node):
            raise UnreadableError("holds '\\\\triangle' before what is no name")
        return Node("sym", name=f"triangle {spelt_out(node)}")

    def board(self) -> Node:
        self.take("{")
        letter = self.take("letter").text
        self.take("}")
        return Node("numbers", name=letter)

    def vector(self) -> Node:
        node = self.listed_until("rangle")
        return Node("tuple", tuple(node), name="()")

    def listed_until(self, closing: str) -> list[Node]:
        items = [self.item()]
        while self.kind() == ",":
            self.position += 1
            items.append(self.item())
        self.take(closing)
        return items

    def environment(self) -> Node:
        """A matrix, or another grid of cells."""
        kind = self._environment_name()
        if kind == "array":
            self.position = next(
                (i + 1 for i in range(self.position, len(self.tokens)) if self.tokens[i].kind == "}"), self.position
            )
        rows: list[list[Node]] = [[]]
        self.open()
        while not self.is_command("end"):
            if self.kind() == "\\\\":
                self.position += 1
                rows.append([])
                continue
            if self.kind() == "&":
                self.position += 1
                continue
            rows[-1].append(self.item() if kind in ("cases", "array") else self.sum())
            if kind == "cases" and self.kind() == ",":
                self.position += 1
            if self.kind() not in ("&", "\\\\", "end"):
                raise UnreadableError("has a cell of a matrix that is not read")
        self.take("end")
        self.depth -= 1
        if self._environment_name() != kind:
            raise UnreadableError("has an environment that is not closed")
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise UnreadableError("has a matrix with rows of different lengths")
        cells = tuple(Node("row", tuple(row)) for row in rows)
        name = "cases" if kind == "cases" else "determinant" if kind == "vmatrix" else "matrix"
        return Node("grid", cells, name=name)

    def _environment_name(self) -> str:
        name = self.take("environment").text
        if name not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "smallmatrix", "cases", "array"):
            raise UnreadableError(f"has an environment {name!r}, which is not read")
        return name


_ATOMS: Mapping[str, Callable[[Brackets], Node]] = {
    "frac": Brackets.frac, "sqrt": Brackets.sqrt, "binom": Brackets.binom, "lfloor": Brackets.floor,
    "lceil": Brackets.ceil,
    "overline": Brackets.overline, "overrightarrow": Brackets.overline, "angle": Brackets.angle,
    "triangle": Brackets.triangle, "mathbb": Brackets.board, "langle": Brackets.vector, "begin": Brackets.environment,
    "pi": lambda reader: reader.named("pi") if reader.kind() == "_" else Node("pi"),
    "infty": lambda reader: Node("oo"), "emptyset": lambda reader: Node("set"),
    "reals": lambda reader: Node("numbers", name="R"),
}  # fmt: skip


_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "le": "<=", "ge": ">=", "ne": "!=", "!=": "!=",
    "approx": "~", "in": "in", "equiv": "==",
}  # fmt: skip
_MONEY = {"rupee": "rupee", "euro": "euro", "pound": "pound", "yen": "yen"}
_SPELT = {"is": "=", "equals": "=", "equal": "=", "are": "="}


@lru_cache(maxsize=16384)
def read(text: str) -> Node:
    """The tree of an answer.

    Raises:
        UnreadableError: it is not wholly an answer in this language; says what was met.
    """
    reader = _Reader(tokens(text))
    try:
        tree = reader.answer()
    except RecursionError:
        raise UnreadableError("has too many brackets inside each other") from None
    if reader.at is not None:
        raise UnreadableError(f"holds {shown(reader.at)}, which is not read")
    return tree


class _Reader(Brackets):
    def answer(self) -> Node:
        items = [self.item()]
        joint = ""
        while self.kind() in (",", ";", "and", "or", "\\\\") or (self.kind() == "." and self.kind(1) in ("word", "")):
            before = self.position
            while self.kind() in (",", ";", "and", "or", ".", "&"):
                joint = self.kind() if self.kind() in ("and", "or") else joint
                self.position += 1
            if self.at is None:
                if self.tokens[before].kind == ".":
                    break
                raise UnreadableError("ends where more is expected")
            if self.at.kind == "word" and self.at.text.lower() in REASONS:
                self.position = len(self.tokens)
                break
            items.append(self.item())
        items = self._with_remarks(items)
        items = spread(items)
        return items[0] if len(items) == 1 else Node("list", tuple(items), name=joint)

    def _with_remarks(self, items: list[Node]) -> list[Node]:
        """`72 clips, altogether`: words beside the one item that holds a number are words around it."""
        told = [item for item in items if item.kind != "words"]
        if len(told) != 1 or len(items) == 1:
            return items
        words = [word for item in items if item.kind == "words" for word in item.name.split()]
        _, _, unit = measured(words, ())
        if unit.dimensions or unit.turns:
            raise UnreadableError(f"holds the words {' '.join(words)!r} beside a number")
        return told

    def item(self) -> Node:
        if self.kind() == "ldots":
            self.position += 1
            return Node("ldots")
        if self.kind() == "approx":
            self.position += 1
        sides, relations = [self.side()], list[str]()
        spelt = False
        while True:
            if self.kind() in _RELATIONS:
                relations.append(_RELATIONS[self.kind()])
                self.position += 1
                spelt = False
            elif self.at is not None and self.at.kind == "word" and self.at.text.lower() in _SPELT:
                relations.append("=")
                self.position += 1
                spelt = True
            else:
                break
            sides.append(self.side())
        if spelt and sides[-1].kind == "words" and sides[0].kind != "words":  # `x = 5 is the solution`
            sides, relations = sides[:-1], relations[:-1]
        elif len(relations) > 1 and sides[0].kind == "words" and relations[0] == "=":  # `The solution is x > 5`
            sides, relations = sides[1:], relations[1:]
        if not relations:
            return sides[0]
        if sides[0].kind == "words":  # `Total = 5`, `The area is 5`
            if set(relations) - {"=", "~"}:
                raise UnreadableError(f"holds the words {sides[0].name!r} in a relation")
            return _told(sides[-1] if relations[-1] == "=" else sides[-2], sides[0].name.split())
        return Node("relation", tuple(sides), name=" ".join(relations))

    def side(self) -> Node:
        """A value with the words around it, or several of them in a row, or words alone."""
        before = self.words()
        stated: list[tuple[Node, list[str]]] = []
        while self.begins():
            money = self.money()
            node = self.union()
            if money and node.kind == "num" and self.kind() in _MONEY:
                self.take()
            behind = [*self.unit(), *money]
            if not money and self.kind() in ("$", "\\$", *_MONEY):
                behind += self.money()
            stated.append((node, behind))
            if self.at is not None and self.at.kind == "word" and self.at.text.lower() in _SPELT:
                break
        if not stated:
            if not before:
                raise UnreadableError(
                    f"holds {shown(self.at)}, which is not read" if self.at else "ends where more is expected"
                )
            return _words(before)
        if len(stated) == 1:
            return _quantity(*stated[0], before)
        parts = [_quantity(node, behind, ()) for node, behind in stated]
        return _compound(parts, before)

    def begins(self) -> bool:
        """Whether an expression may begin here."""
        kind = self.kind()
        if kind in (
            "",
            ",",
            ";",
            ")",
            "]",
            "}",
            "\\}",
            "and",
            "or",
            "word",
            ".",
            "&",
            "\\\\",
            "ldots",
            "end",
            "rangle",
        ):
            return False
        return kind not in _RELATIONS and not (kind == "|" and self.bars)

    def words(self) -> list[str]:
        found: list[str] = []
        while self.at is not None and self.at.kind == "word" and not (found and self.at.text.lower() in _SPELT):
            found.append(self.take().text)
            if self.kind() == ":" and self.kind(1) != "":
                self.position += 1
        return found

    def money(self) -> list[str]:
        if self.kind() in ("$", "\\$"):
            self.position += 1
            return ["dollar"]
        if self.kind() in _MONEY:
            return [_MONEY[self.take().text]]
        return []

    def unit(self) -> list[str]:
        """Words behind a number, with the exponents and strokes between them."""
        found: list[str] = []
        while self.at is not None:
            if self.at.kind == "word":
                if self.at.text.lower() in _SPELT:
                    break
                found.append(self.take().text)
            elif found and self.kind() == "^":
                found.extend(["^", self.exponent_of_unit()])
            elif self.kind() == "/" and self.kind(1) in ("word", "letter"):
                self.position += 1
                found.extend(["/", self.take().text])
            elif found and self.kind() in ("*", "-") and self.kind(1) == "word":
                self.position += 1
            elif found and self.at.kind == "letter" and self.at.text in UNITS and not self.at.spaced:
                found.append(self.take().text)
            else:
                break
        return found

    def exponent_of_unit(self) -> str:
        self.take("^")
        braced = self.kind() == "{"
        self.position += braced
        sign = "-" if self.kind() == "-" else ""
        self.position += bool(sign)
        digits = self.take("number").text
        if braced:
            self.take("}")
        if not digits.isdigit() or not int(digits):
            raise UnreadableError("has a unit with an exponent that is 0 or not whole")
        return sign + digits

    def union(self) -> Node:
        node = self.sum()
        while self.kind() in ("cup", "cap", "setminus"):
            name = self.take().text
            node = Node(name, (node, self.sum()))
        if self.kind() == ":":
            parts = [node]
            while self.kind() == ":":
                self.take()
                parts.append(self.sum())
            clock = len(parts) == 2 and all(part.kind == "num" and part.detail is None for part in parts)
            shown = [token.text for token in self.tokens[self.position - 3 : self.position]]
            return Node(
                "ratio", tuple(parts), name="clock" if clock and len(shown[-1]) == 2 and len(shown[0]) < 3 else ""
            )
        if self.kind() == "pmod" or (self.kind() == "(" and self.kind(1) == "mod"):
            braced = self.take().text
            if braced == "(":
                self.take("mod")
                modulus = self.sum()
                self.take(")")
            else:
                modulus = self.argument()
            return Node("residue", (node, modulus))
        return node


def _words(found: list[str]) -> Node:
    number = NUMBER_WORDS.get(found[0].lower())
    if number is not None:
        return _quantity(num(number), found[1:], ())
    return Node("words", name=" ".join(found))


def _told(node: Node, words: list[str]) -> Node:
    """A value with more words before it."""
    if node.kind == "quantity":
        _, _, unit = measured([], words)
        old: Unit = node.detail
        more = old._replace(nouns=old.nouns | unit.nouns, turns=old.turns | unit.turns, leads=old.leads | unit.leads)
        return Node("quantity", node.parts, detail=more)
    return _quantity(node, [], words)


def _quantity(node: Node, behind: list[str], before: list[str] | tuple[str, ...]) -> Node:
    if not behind and not before:
        return node
    if node.kind in ("relation", "list", "set", "tuple") and not behind:
        factor, percent, unit = measured([], before)
        return node if not unit.turns else Node("quantity", (node,), detail=unit)
    factor, percent, unit = measured(behind, before)
    if factor != 1:
        node = num((node.value or Fraction(0)) * factor) if node.kind == "num" else Node("mul", (num(factor), node))
    if percent:
        node = Node("percent", (node,))
    if unit.dimensions == (("degree", 1),):
        node, unit = Node("degree", (node,)), unit._replace(dimensions=())
    return node if unit.empty else Node("quantity", (node,), detail=unit)


def _compound(parts: list[Node], before: list[str]) -> Node:
    """`5 ft 6 in` as one quantity; what is none of the kind, as `5 remainder 2`, as it stands."""
    units = [part.detail if part.kind == "quantity" else Unit() for part in parts]
    plain = all(part.kind == "quantity" and part.parts[0].kind == "num" for part in parts)
    if (
        plain
        and len({unit.dimensions for unit in units}) == 1
        and units[0].dimensions
        and not any(unit.nouns or unit.turns or unit.offset for unit in units)
    ):
        total = sum(
            (unit.scale * (part.parts[0].value or 0) for unit, part in zip(units, parts, strict=True)), Fraction(0)
        )
        smallest = units[0]._replace(scale=Fraction(1), turns=measured([], before)[2].turns)
        return Node("quantity", (num(total),), name="compound", detail=smallest)
    if all(unit.empty for unit in units) and not all(part.kind == "num" for part in parts):
        raise UnreadableError("has expressions in a row")
    return Node("phrase", tuple(parts), name=" ".join(before).lower())
