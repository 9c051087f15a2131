r"""Brackets of all kinds, and what LaTeX commands write: fractions, roots, matrices, segments, sets of numbers."""

from collections.abc import Callable, Mapping

from freeprm.core.expressions import Expressions
from freeprm.core.notation import UnreadableError
from freeprm.core.tree import Node, is_of_letters, num, spelt_out, spread


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
