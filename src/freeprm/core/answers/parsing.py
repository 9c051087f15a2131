r"""The parser of answers: a whole text to a tree, or an error.

    answer   := item (separator item)*            `,` `;` `and` `or`, words that give a reason end it
    item     := side (relation side)*             `=` `<` `\le` `\in` ...
    side     := words? set-expression words?      a number with its unit; several of them in a row
    ...down to numbers, letters, functions and brackets, with the usual precedence (`expressions.py`)

A text that is ambiguous or does not follow the grammar to its last token raises: an answer is never compared by a part.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from freeprm.core.answers.expressions import ExpressionParser, shown
from freeprm.core.answers.tokens import ParseError, tokenise
from freeprm.core.answers.tree import Node, is_of_letters, num, spelt_out, spread
from freeprm.core.answers.units import MONEY, NUMBER_WORDS, REASONS, UNITS, Unit, measured

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "le": "<=", "ge": ">=", "ne": "!=", "!=": "!=",
    "approx": "~", "in": "in", "equiv": "==",
}  # fmt: skip
_EQUALS = {"is", "equals", "equal", "are"}
_ENDS = {
    "", ",", ";", ")", "]", "}", "\\}", "and", "or", "word", ".", "&", "\\\\", "ldots", "end", "rangle",
}  # fmt: skip
_ENVIRONMENTS = {"pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "smallmatrix", "cases", "array"}
_GROUPED = {"add", "neg", "mul", "div", "num", "pm"}  # whose brackets are kept in the tree


@lru_cache(maxsize=16384)
def parse(text: str) -> Node:
    """The tree of an answer; a ParseError says what does not follow the grammar."""
    parser = _Parser(tokenise(text))
    try:
        tree = parser.answer()
    except RecursionError:
        raise ParseError("has too many brackets inside each other") from None
    if parser.at is not None:
        raise ParseError(f"holds {shown(parser.at)}, which is not read")
    return tree


class _Parser(ExpressionParser):
    # Lists, relations, and values among words.

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
                raise ParseError("ends where more is expected")
            if self.at.kind == "word" and self.at.text.lower() in REASONS:
                self.position = len(self.tokens)
                break
            items.append(self.item())
        items = spread(_without_remarks(items))
        return items[0] if len(items) == 1 else Node("list", tuple(items), name=joint)

    def item(self) -> Node:
        if (kind := self.kind()) in ("ldots", "approx"):
            self.position += 1
            if kind == "ldots":
                return Node("ldots")
        sides, relations = [self.side()], list[str]()
        in_words = False
        while self.kind() in _RELATIONS or self.says_equals():
            in_words = self.kind() not in _RELATIONS
            relations.append("=" if in_words else _RELATIONS[self.kind()])
            self.position += 1
            sides.append(self.side())
        if in_words and sides[-1].kind == "words" and sides[0].kind != "words":  # `x = 5 is the solution`
            sides, relations = sides[:-1], relations[:-1]
        elif len(relations) > 1 and sides[0].kind == "words" and relations[0] == "=":  # `The solution is x > 5`
            sides, relations = sides[1:], relations[1:]
        if not relations:
            return sides[0]
        if sides[0].kind == "words":  # `Total = 5`, `The area is 5`
            if set(relations) - {"=", "~"}:
                raise ParseError(f"holds the words {sides[0].name!r} in a relation")
            return _with_more_words(sides[-1] if relations[-1] == "=" else sides[-2], sides[0].name.split())
        return Node("relation", tuple(sides), name=" ".join(relations))

    def says_equals(self) -> bool:
        return self.at is not None and self.at.kind == "word" and self.at.text.lower() in _EQUALS

    def side(self) -> Node:
        """A value with words around it, several of them in a row, or words alone."""
        before = self.words()
        values: list[tuple[Node, list[str]]] = []
        while self.begins():
            money = self.money()
            node = self.union()
            if money and node.kind == "num":
                self.skip(*MONEY)
            behind = [*self.unit(), *money]
            if not money and self.kind() in ("$", "\\$", *MONEY):
                behind += self.money()
            values.append((node, behind))
            if self.says_equals():
                break
        if not values:
            if not before:
                raise ParseError(
                    f"holds {shown(self.at)}, which is not read" if self.at else "ends where more is expected"
                )
            number = NUMBER_WORDS.get(before[0].lower())
            return Node("words", name=" ".join(before)) if number is None else _quantity(num(number), before[1:], ())
        if len(values) == 1:
            return _quantity(*values[0], before)
        return _compound([_quantity(node, behind, ()) for node, behind in values], before)

    def begins(self) -> bool:
        """Whether an expression may begin here."""
        kind = self.kind()
        return kind not in _ENDS and kind not in _RELATIONS and not (kind == "|" and self.bars)

    def words(self) -> list[str]:
        found: list[str] = []
        while self.kind() == "word" and not (found and self.says_equals()):
            found.append(self.take().text)
            if self.kind() == ":" and self.kind(1) != "":
                self.position += 1
        return found

    def money(self) -> list[str]:
        if self.skip("$", "\\$"):
            return ["dollar"]
        return [self.take().text] if self.kind() in MONEY else []

    def unit(self) -> list[str]:
        """Words of a unit behind a number, with exponents and slashes."""
        found: list[str] = []
        while self.at is not None and not self.says_equals():
            if self.at.kind == "word":
                found.append(self.take().text)
            elif found and self.skip("^"):
                found += ["^", self.exponent_of_unit()]
            elif self.kind() == "/" and self.kind(1) in ("word", "letter"):
                self.position += 1
                found += ["/", self.take().text]
            elif found and self.kind() in ("*", "-") and self.kind(1) == "word":
                self.position += 1
            elif found and self.at.kind == "letter" and self.at.text in UNITS and not self.at.spaced:
                found.append(self.take().text)
            else:
                break
        return found

    def exponent_of_unit(self) -> str:
        braced = self.skip("{")
        sign = "-" if self.skip("-") else ""
        digits = self.take("number").text
        if braced:
            self.take("}")
        if not digits.isdigit() or not int(digits):
            raise ParseError("has a unit with an exponent that is 0 or not whole")
        return sign + digits

    def union(self) -> Node:
        """An expression, a combination of sets, a ratio or time, or a residue."""
        node = self.sum()
        while self.kind() in ("cup", "cap", "setminus"):
            name = self.take().text
            node = Node(name, (node, self.sum()))
        if self.kind() == ":":
            parts = [node]
            while self.skip(":"):
                parts.append(self.sum())
            hours, _, minutes = [token.text for token in self.tokens[self.position - 3 : self.position]]
            whole = len(parts) == 2 and all(part.kind == "num" and part.detail is None for part in parts)
            clock = whole and len(minutes) == 2 and len(hours) < 3
            return Node("ratio", tuple(parts), name="clock" if clock else "")
        if self.kind() == "(" and self.kind(1) == "mod":
            self.position += 2
            node = Node("residue", (node, self.sum()))
            self.take(")")
        elif self.kind() == "pmod":
            self.position += 1
            node = Node("residue", (node, self.argument()))
        return node

    # Brackets.

    def bracketed(self) -> Node:
        """See `ExpressionParser`."""
        kind = self.kind()
        if kind in ("(", "["):
            return self.brackets()
        return self.braces() if kind == "{" else Node("set", tuple(spread(self.listed("\\}"))))

    def brackets(self) -> Node:
        """A pair, an interval, a longer tuple, or an expression in brackets."""
        opening = self.kind()
        parts = self.listed(")", "]")
        ends = opening + self.tokens[self.position - 1].kind
        if len(parts) == 1 and ends in ("()", "[]"):
            (inside,) = parts
            if inside.kind in ("relation", "list", "words", "quantity", "ldots"):
                raise ParseError("has a relation, words or a list in brackets")
            return _grouped(inside)
        if len(parts) != 2 and ends == "(]":
            raise ParseError("has brackets that do not match")
        return Node("tuple", tuple(parts), name=ends)

    def listed(self, *closing: str) -> list[Node]:
        """Items in brackets, separated by commas or semicolons."""
        items: list[Node] = []
        with self.nested():
            self.position += 1
            while self.kind() not in closing:
                if items:
                    self.take(",", ";")
                items.append(self.item())
            self.position += 1
        return items

    def braces(self) -> Node:
        """A LaTeX group: an expression, `{1 \\over 2}`, a list such as `{1, 3}`, or `{}_5C_2`."""
        if self.kind(1) == "}" and self.kind(2) == "_":
            self.position += 3
            top = self.index()
            letter = self.take("letter").text
            self.take("_")
            bottom = self.index()
            if letter not in ("C", "P"):
                raise ParseError("has an index before a letter, which is not read")
            return Node("call", (top, bottom), name="choose" if letter == "C" else "permutations")
        with self.nested(bars=False):
            self.take("{")
            items = [self.union()]
            while self.skip(","):
                items.append(self.union())
            if self.is_command("over"):
                self.position += 1
                items = [Node("div", (items[0], self.sum()))]
            self.take("}")
        return Node("list", tuple(items)) if len(items) > 1 else _grouped(items[0])

    def index(self) -> Node:
        return self.group() if self.kind() == "{" else self.atom()

    # Commands.

    def begins_command(self, name: str) -> bool:
        """See `ExpressionParser`."""
        return name in _COMMANDS

    def command(self, name: str) -> Node:
        """See `ExpressionParser`."""
        self.position += 1
        return _COMMANDS[name](self)

    def two_arguments(self) -> tuple[Node, Node]:
        return self.argument(), self.argument()

    def sqrt(self) -> Node:
        degree = num(2)
        if self.skip("["):
            degree = self.sum()
            self.take("]")
        if self.kind() == "(":
            inside = self.arguments()
            if len(inside) != 1:
                raise ParseError("has a root of several numbers")
            return Node("root", (inside[0], degree))
        if self.at is not None and self.at.kind == "number" and len(self.at.text) > 1:
            # `√12` is the root of 12; `\sqrt12` is that of 1, before a 2, to LaTeX
            raise ParseError("has a root without braces, which could be read in two ways")
        return Node("root", (self.argument(), degree))

    def rounded(self, name: str) -> Node:
        node = self.sum()
        self.take(f"r{name}")
        return Node("call", (node,), name=name)

    def overline(self) -> Node:
        """A segment; the bar over repeating decimals was read with the number."""
        inside = self.index()
        if not is_of_letters(inside):
            raise ParseError("has a bar over what is neither decimals nor letters")
        return Node("sym", name=f"overline {spelt_out(inside)}")

    def figure(self, name: str) -> Node:
        """`\\angle ABC`, `\\triangle ABC`."""
        node = self.product()
        if not is_of_letters(node):
            raise ParseError(f"holds '\\\\{name}' before what is no name")
        return Node("sym", name=f"{name} {spelt_out(node)}")

    def board(self) -> Node:
        """`\\mathbb{R}`."""
        self.take("{")
        letter = self.take("letter").text
        self.take("}")
        return Node("numbers", name=letter)

    def environment(self) -> Node:
        """A matrix, or another grid of cells."""
        kind = self.environment_name()
        if kind == "array":
            self.position = next(
                (i + 1 for i in range(self.position, len(self.tokens)) if self.tokens[i].kind == "}"), self.position
            )
        rows: list[list[Node]] = [[]]
        with self.nested(bars=False):
            while not self.is_command("end"):
                if self.skip("\\\\"):
                    rows.append([])
                    continue
                if self.skip("&"):
                    continue
                rows[-1].append(self.item() if kind in ("cases", "array") else self.sum())
                if kind == "cases":
                    self.skip(",")
                if self.kind() not in ("&", "\\\\", "end"):
                    raise ParseError("has a cell of a matrix that is not read")
            self.take("end")
        if self.environment_name() != kind:
            raise ParseError("has an environment that is not closed")
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise ParseError("has a matrix with rows of different lengths")
        cells = tuple(Node("row", tuple(row)) for row in rows)
        return Node("grid", cells, name={"cases": "cases", "vmatrix": "determinant"}.get(kind, "matrix"))

    def environment_name(self) -> str:
        name = self.take("environment").text
        if name not in _ENVIRONMENTS:
            raise ParseError(f"has an environment {name!r}, which is not read")
        return name


_COMMANDS: Mapping[str, Callable[[_Parser], Node]] = {
    "frac": lambda parser: Node("div", parser.two_arguments()),
    "binom": lambda parser: Node("call", parser.two_arguments(), name="choose"),
    "sqrt": _Parser.sqrt, "lfloor": lambda parser: parser.rounded("floor"),
    "lceil": lambda parser: parser.rounded("ceil"), "overline": _Parser.overline, "overrightarrow": _Parser.overline,
    "angle": lambda parser: parser.figure("angle"), "triangle": lambda parser: parser.figure("triangle"),
    "mathbb": _Parser.board, "begin": _Parser.environment,
    "langle": lambda parser: Node("tuple", tuple(parser.separated(parser.item, "rangle")), name="()"),
    "pi": lambda parser: parser.named("pi") if parser.kind() == "_" else Node("pi"),
    "infty": lambda parser: Node("oo"), "emptyset": lambda parser: Node("set"),
    "reals": lambda parser: Node("numbers", name="R"),
}  # fmt: skip


def _grouped(node: Node) -> Node:
    return Node("group", (node,)) if node.kind in _GROUPED else node


def _without_remarks(items: list[Node]) -> list[Node]:
    """`72 clips, altogether`: items of words are dropped beside the only item with a value."""
    values = [item for item in items if item.kind != "words"]
    if len(values) != 1 or len(items) == 1:
        return items
    words = [word for item in items if item.kind == "words" for word in item.name.split()]
    unit = measured(words, ()).unit
    if unit.dimensions or unit.qualifiers:
        raise ParseError(f"holds the words {' '.join(words)!r} beside a number")
    return values


def _with_more_words(node: Node, words: list[str]) -> Node:
    """A value with more words before it."""
    if node.kind != "quantity":
        return _quantity(node, [], words)
    old: Unit = node.detail
    new = measured([], words).unit
    merged = old._replace(
        nouns=old.nouns | new.nouns, qualifiers=old.qualifiers | new.qualifiers, leading=old.leading | new.leading
    )
    return Node("quantity", node.parts, detail=merged)


def _quantity(node: Node, behind: Sequence[str], before: Sequence[str]) -> Node:
    """A value with the words around it."""
    if not behind and not before:
        return node
    factor, percent, unit = measured(behind, before)
    if node.kind in ("relation", "list", "set", "tuple") and not behind:
        return node if not unit.qualifiers else Node("quantity", (node,), detail=unit)
    if factor != 1:
        node = num((node.value or Fraction(0)) * factor) if node.kind == "num" else Node("mul", (num(factor), node))
    if percent:
        node = Node("percent", (node,))
    if unit.dimensions == (("degree", 1),):
        node, unit = Node("degree", (node,)), unit._replace(dimensions=())
    return node if unit.empty else Node("quantity", (node,), detail=unit)


def _compound(parts: list[Node], before: list[str]) -> Node:
    """`5 ft 6 in` as one quantity; other values in a row, such as `5 remainder 2`, as a phrase."""
    units = [part.detail if part.kind == "quantity" else Unit() for part in parts]
    if (
        all(part.kind == "quantity" and part.parts[0].kind == "num" for part in parts)
        and len({unit.dimensions for unit in units}) == 1
        and units[0].dimensions
        and not any(unit.nouns or unit.qualifiers or unit.offset for unit in units)
    ):
        sizes = (unit.scale * (part.parts[0].value or 0) for unit, part in zip(units, parts, strict=True))
        smallest = units[0]._replace(scale=Fraction(1), qualifiers=measured([], before).unit.qualifiers)
        return Node("quantity", (num(sum(sizes, Fraction(0))),), name="compound", detail=smallest)
    if all(unit.empty for unit in units) and not all(part.kind == "num" for part in parts):
        raise ParseError("has expressions in a row")
    return Node("phrase", tuple(parts), name=" ".join(before).lower())
