r"""Arithmetic in answers: sums, products, powers, numbers, letters, functions, with the usual precedence.

Implicit products bind as tightly as `\cdot`. Ambiguous expressions raise: `a/bc`, `\sin x/2`, `3\frac{5}{4}`. Brackets
and commands are parsed in `parsing.py`, as are lists, relations and words.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Self

from freeprm.core.answers.tokens import ParseError, Token
from freeprm.core.answers.tree import Node, factors, hoisted, is_arithmetic, is_of_numbers, negative, num, rational
from freeprm.core.answers.units import NUMBER_WORDS, word_set

_DEPTH = 24  # nested brackets, each of which costs a dozen calls
_FUNCTIONS = word_set("""
    sin cos tan sec csc cot asin acos atan sinh cosh tanh coth exp ln log abs floor ceil factorial
""")
_OF_SEVERAL = frozenset({"max", "min", "gcd", "lcm", "choose", "permutations", "det", "mod"})
_INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan"}
_GREEK = word_set("""
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega
    Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar vartheta
""")
_SIGNS = {"-", "+", "pm", "mp"}
_LARGE_BASES = {"11", "12", "13", "14", "15", "16"}  # with capital letters as digits


def shown(token: Token) -> str:
    """The token, for messages."""
    return repr(f"\\{token.text}" if token.kind == "command" else token.text)


class ExpressionParser(ABC):
    """A recursive-descent parser of expressions over a list of tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.bars = 0  # open `|`
        self.outer_bars: list[int] = []  # those outside of each open bracket

    @property
    def at(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def kind(self, ahead: int = 0) -> str:
        """Kind of the token ahead, or the name of a command; empty at the end."""
        position = self.position + ahead
        if position >= len(self.tokens):
            return ""
        token = self.tokens[position]
        return token.text if token.kind == "command" else token.kind

    def is_command(self, *names: str) -> bool:
        return self.at is not None and self.at.kind == "command" and self.at.text in names

    def take(self, *kinds: str) -> Token:
        token = self.at
        if token is None:
            raise ParseError("ends where more is expected")
        if kinds and self.kind() not in kinds:
            raise ParseError(f"holds {shown(token)}, which is not read")
        self.position += 1
        return token

    def skip(self, *kinds: str) -> bool:
        """Take the next token if it is of one of these kinds."""
        found = self.kind() in kinds
        self.position += found
        return found

    def nested(self, *, bars: bool = True) -> Self:
        """Context of brackets; with `bars` a `|` inside begins an absolute value, whatever is open outside."""
        self.outer_bars.append(self.bars)
        if len(self.outer_bars) > _DEPTH:
            raise ParseError("has too many brackets inside each other")
        if bars:
            self.bars = 0
        return self

    def __enter__(self) -> Self:
        """See `nested`."""
        return self

    def __exit__(self, *error: object) -> None:
        """See `nested`."""
        self.bars = self.outer_bars.pop()

    def sum(self) -> Node:
        terms = [self.term(first=True)]
        while self.kind() in _SIGNS:
            terms.append(self.term(first=False))
        if len(terms) > 1 and not all(map(is_arithmetic, terms)):
            raise ParseError("adds what is no number")
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def term(self, *, first: bool) -> Node:
        sign = self.take().text if self.kind() in _SIGNS else "+"
        while self.kind() in ("-", "+"):  # `14 + -1i`
            sign = {"+": "-", "-": "+"}.get(sign, sign) if self.take().text == "-" else sign
        if first and self.kind() in ("$", "\\$"):
            self.position += 1  # `-\$5`; the unit is ignored
        node = self.product()
        if sign == "-" and node.kind == "based":
            return Node("based", name=f"-{node.name}", value=node.value)
        if sign != "+" and not is_arithmetic(node):
            raise ParseError("has a sign before what is no number")
        if sign in ("pm", "mp"):
            return Node("pm", (node,), name=sign)
        return negative(node) if sign == "-" else node

    def product(self) -> Node:
        node = self.power()
        divided = False  # the last factor is behind a `/`
        while True:
            kind = self.kind()
            if kind == "*" or (kind == "/" and self.kind(1) != "word"):
                self.position += 1
                other, divided = self.signed_power(), kind == "/"
                node = Node("div", (node, other)) if divided else Node("mul", (*factors(node), other))
            elif kind == "mod":
                self.position += 1
                node, divided = Node("call", (node, self.power()), name="mod"), False
            elif self.continues(node):
                if divided and not is_of_numbers(node):
                    raise ParseError("has a factor behind a `/`, which could be read in two ways")
                node, divided = Node("mul", (*factors(node), self.power())), False
            else:
                return hoisted(node)

    def continues(self, node: Node) -> bool:
        """Whether an implicit factor follows."""
        token, kind = self.at, self.kind()
        if token is None:
            return False
        if kind == "number":
            previous = self.tokens[self.position - 1]
            return previous.kind in (")", "}") and not token.spaced and node.kind != "num"
        if kind == "|":
            return self.bars == 0 and node.kind != "set"
        if kind == "(":
            return self.kind(1) != "mod" and node.kind not in ("tuple", "interval")
        if token.kind == "command":
            return kind in _GREEK or kind in _FUNCTIONS or kind in _OF_SEVERAL or self.begins_command(kind)
        return kind in ("letter", "{")

    def signed_power(self) -> Node:
        if self.kind() in ("-", "+"):
            return negative(self.signed_power()) if self.take().text == "-" else self.signed_power()
        return self.power()

    def power(self) -> Node:
        node = self.postfix()
        if self.kind() != "^":
            return node
        self.position += 1
        if self.is_command("circ", "degree"):
            self.position += 1
            return self.minutes(node)
        if self.kind() == "{" and self.kind(1) in ("circ", "degree") and self.kind(2) == "}":
            self.position += 3
            return self.minutes(node)
        if self.kind() in ("prime", "'"):
            raise ParseError("holds a derivative, which is not read")
        node = Node("pow", (node, self.exponent()))
        if self.kind() == "^":
            raise ParseError("has two exponents")
        return self.signs(node)

    def minutes(self, node: Node) -> Node:
        """Degrees, with minutes and seconds."""
        total = [node]
        for n_marks, size in ((1, 60), (2, 3600)):
            count = 0
            while self.kind(1 + count) == "'":
                count += 1
            if self.kind() == "number" and count == n_marks:
                part = self.take()
                self.position += n_marks
                total.append(Node("div", (num(part.value or 0, part.places), num(size))))
        if len(total) > 1:
            if not all(part.kind in ("num", "div") for part in total):
                raise ParseError("has minutes behind what is no number")
            total = [num(sum(map(rational, total), Fraction(0)))]
        letter = self.at
        if letter and letter.text in ("C", "F") and letter.kind != "command" and self.kind(1) in ("", ",", "."):
            self.tokens[self.position] = Token("word", letter.text)
            return total[0]
        return Node("degree", (total[0],))

    def exponent(self) -> Node:
        if self.kind() == "{":
            return self.group()
        if self.kind() in ("-", "+"):
            return negative(self.exponent()) if self.take().text == "-" else self.exponent()
        if self.kind() == "(":
            return self.postfix()
        if self.kind() == "number":
            token = self.take()
            return num(token.value or 0, token.places)
        return self.atom()

    def postfix(self) -> Node:
        return self.signs(self.atom())

    def signs(self, node: Node) -> Node:
        while True:
            kind = self.kind()
            if kind == "!":
                self.position += 1
                if self.kind() == "!":
                    raise ParseError("holds '!!', which is not read")
                node = Node("call", (node,), name="factorial")
            elif kind in ("\\%", "%"):
                self.position += 1
                node = Node("percent", (node,))
            elif self.is_command("degree", "circ"):
                self.position += 1
                node = self.minutes(node)
            else:
                return node

    def atom(self) -> Node:
        kind, token = self.kind(), self.at
        if token is None:
            raise ParseError("ends where more is expected")
        if kind == "number":
            return self.number()
        if kind == "letter":
            return self.letter()
        if kind == "word":  # `10 + John's age`
            words = []
            while self.kind() == "word":
                words.append(self.take().text.lower())
            return Node("sym", name=" ".join(words))
        if kind in ("(", "[", "{", "\\{"):
            return self.bracketed()
        if kind == "|":
            with self.nested(bars=False):
                self.position += 1
                self.bars += 1
                inside = self.sum()
                self.take("|")
            return Node("call", (inside,), name="abs")
        if token.kind == "command":
            if self.begins_command(kind):
                return self.command(kind)
            if kind in _GREEK:
                self.position += 1
                return self.named(kind)
            if kind in _FUNCTIONS or kind in _OF_SEVERAL:
                return self.function()
        raise ParseError(f"holds {shown(token)}, which is not read")

    def number(self) -> Node:
        """A number, possibly in another base or mixed, such as `1 1/2` and `1\\frac12`."""
        token = self.take("number")
        value = token.value or Fraction(0)
        if self.kind() == "_" or (self.kind() == "letter" and self._is_in_large_base()):
            return self.based(token.text)
        if token.places is not None or value.denominator > 1:
            return num(value, token.places)
        if self.is_command("frac"):
            mark = self.position
            part = self.command("frac")
            if part.kind == "div" and all(side.kind == "num" for side in part.parts):
                share, top = rational(part), part.parts[0].value or Fraction(0)
                if not 0 < share < 1 or top < 0 or top.denominator > 1:
                    raise ParseError("has a number before a fraction, which could be read in two ways")
                return num(value + share)
            self.position = mark
        if [self.kind(0), self.kind(1), self.kind(2)] == ["number", "/", "number"] and self.at and self.at.spaced:
            above, _, below = self.take(), self.take(), self.take()
            if not above.value or not below.value or above.value >= below.value or above.places or below.places:
                raise ParseError("has a number before a fraction, which could be read in two ways")
            return num(value + above.value / below.value)
        return num(value, token.places)

    def _is_in_large_base(self) -> bool:
        """Whether digits and capital letters up to F follow, then a base above 10."""
        end = self.position
        while end < len(self.tokens) and (
            self.tokens[end].kind == "number"
            or (self.tokens[end].kind == "letter" and self.tokens[end].text in "ABCDEF")
        ):
            end += 1
        if end in (self.position, len(self.tokens)) or self.tokens[end].kind != "_":
            return False
        base = next((token.text for token in self.tokens[end + 1 : end + 3] if token.kind == "number"), "")
        return base in _LARGE_BASES

    def based(self, digits: str) -> Node:
        """Digits with a base: `52_8`, `\\text{1A}_{16}`, `101_{two}`."""
        while self.kind() in ("letter", "number"):
            digits += self.take().text
        self.take("_")
        braced = self.skip("{")
        if braced:
            self.skip("(")
        token = self.take()
        if braced:
            self.skip(")")
            self.take("}")
        base = NUMBER_WORDS.get(token.text.lower(), 0)
        if token.kind == "number" and token.places is None:
            base = int(token.value or 0)
        digits = digits.replace(",", "").replace("{}", "").upper()
        if not 2 <= base <= 36 or not all(digit == "." or (digit.isalnum() and digit.isascii()) for digit in digits):
            raise ParseError("has a number with an index that is no base")
        return Node("based", name=digits.lstrip("0") or "0", value=Fraction(base))

    def letter(self) -> Node:
        if self.at is not None and self.at.text in "ABCDEF" and self._is_in_large_base():
            return self.based(self.take("letter").text)
        name = self.take("letter").text
        if name in "ei" and self.kind() not in ("_", "'"):
            return Node(name)
        if name in ("C", "P") and self.kind() == "(":
            mark = self.position
            arguments = self.arguments()
            if len(arguments) == 2:
                return Node("call", tuple(arguments), name="choose" if name == "C" else "permutations")
            self.position = mark
        if name in ("f", "g", "h", "F", "G") and self.kind() in ("(", "'"):
            primes = ""
            while self.skip("'"):
                primes += "'"
            if self.kind() == "(":
                return Node("call", tuple(self.arguments()), name=f"of {name}{primes}")
            return Node("sym", name=name + primes)
        return self.named(name)

    def named(self, name: str) -> Node:
        """A letter with its index and primes."""
        if self.skip("_"):
            if self.kind() == "{":
                depth, index = 0, ""
                while True:
                    token = self.take()
                    depth += (token.kind == "{") - (token.kind == "}")
                    if depth == 0:
                        break
                    index += token.text if token.kind != "{" else ""
                name += f"_{index}"
            else:
                name += f"_{self.take('number', 'letter', *_GREEK, 'infty').text}"
        while self.skip("'"):
            name += "'"
        return Node("sym", name=name)

    def argument(self) -> Node:
        r"""An argument of `\frac` or `\sqrt`: a group, or one digit, letter or command."""
        if self.kind() == "{":
            return self.group()
        token = self.at
        if token is not None and token.kind == "number":
            if not token.text.isdigit():
                raise ParseError("has a number without braces, which could be read in two ways")
            if len(token.text) == 1:
                self.position += 1
            else:
                rest = token.text[1:]
                self.tokens[self.position] = Token("number", rest, False, Fraction(int(rest)))
            return num(int(token.text[0]))
        if token is not None and token.kind == "letter":
            self.position += 1
            return Node(token.text) if token.text in "ei" else Node("sym", name=token.text)
        return self.atom()

    def arguments(self) -> list[Node]:
        with self.nested(bars=False):
            closing = "}" if self.take("{", "(").kind == "{" else ")"
            return self.separated(self.sum, closing)

    def separated(self, parse: Callable[[], Node], closing: str) -> list[Node]:
        """Items separated by commas, and the closing bracket."""
        items = [parse()]
        while self.skip(","):
            items.append(parse())
        self.take(closing)
        return items

    def function(self) -> Node:
        name = self.take().text
        base: Node | None = None
        power: Node | None = None
        while self.kind() in ("_", "^"):
            if self.take().kind == "_":
                base = self.exponent()
            else:
                power = self.exponent()
        if base is not None and name != "log":
            raise ParseError("has an index at a function, which is not read")
        if power is not None and power.kind == "num" and power.value == -1:
            if name not in _INVERSES:
                raise ParseError("has a function to the power of -1, which could be read in two ways")
            name, power = _INVERSES[name], None
        if self.kind() in ("(", "{"):
            arguments = self.arguments()
        elif name in _OF_SEVERAL:
            raise ParseError(f"has {name!r} without brackets")
        else:
            arguments = [self.bare_argument()]
        if name in _FUNCTIONS and len(arguments) != 1 and (name != "log" or len(arguments) != 2):
            raise ParseError(f"has {name!r} of {len(arguments)} arguments")
        node = Node("call", (*arguments, *([] if base is None else [base])), name=name)
        return node if power is None else Node("pow", (node, power))

    def bare_argument(self) -> Node:
        """The argument in `\\sin 2x`: only numbers and letters in a row."""
        if self.skip("-"):
            return negative(self.bare_argument())
        node = self.power()
        while (
            self.kind() in ("letter", "pi")
            or self.kind() in _GREEK
            or (node.kind == "num" and self.kind() in ("frac", "sqrt"))
        ):
            node = Node("mul", (*factors(node), self.power()))
        if self.kind() == "/" and self.kind(1) in ("number", "letter", "pi"):
            raise ParseError("has a `/` behind a function without brackets, which could be read in two ways")
        return node

    def group(self) -> Node:
        """The expression in braces."""
        with self.nested():
            self.take("{")
            node = self.sum()
            self.take("}")
        return node

    @abstractmethod
    def bracketed(self) -> Node:
        """Parse from an opening bracket."""

    @abstractmethod
    def begins_command(self, name: str) -> bool:
        """Whether `command` parses it."""

    @abstractmethod
    def command(self, name: str) -> Node:
        r"""Parse a command such as `\frac`."""
