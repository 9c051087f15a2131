r"""An answer read as a tree, all of it or not at all.

    answer   := item (separator item)*            `,` `;` `and` `or`, words that give a reason end it
    item     := side (relation side)*             `=` `<` `\le` `\in` ...
    side     := words? set-expression words?      a number with its unit; several of them in a row
    ...down to numbers, letters, functions and brackets, by the usual precedence

A text that the grammar does not account for to its last token, or that could be read in two ways, raises: an answer is
never compared by a part of it. `core.values` evaluates trees, `core.meaning` compares them.
"""

from fractions import Fraction
from functools import lru_cache

from freeprm.core.brackets import Brackets
from freeprm.core.expressions import shown
from freeprm.core.notation import UnreadableError, tokens
from freeprm.core.quantities import NUMBER_WORDS, REASONS, UNITS, Unit, measured
from freeprm.core.tree import Node, num, spread

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
