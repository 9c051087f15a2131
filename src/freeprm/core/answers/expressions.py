r"""Arithmetic as answers write it: sums, products, powers, numbers, letters and functions, by the usual precedence.

Implicit products bind as tightly as `\cdot`. What could be read in two ways raises: `a/bc`, `\sin x/2`, `3\frac{5}{4}`.
Brackets and commands are read in `brackets.py`, lists, relations and words in `reading.py`.
"""

from abc import ABC, abstractmethod
from fractions import Fraction

from freeprm.core.answers.tokens import Token, UnreadableError
from freeprm.core.answers.tree import Node, factors, hoisted, is_arithmetic, is_of_numbers, negative, num, rational
from freeprm.core.answers.units import NUMBER_WORDS, word_list

_DEPTH = 24  # brackets inside each other: each costs a dozen calls
_FUNCTIONS = {
    "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "coth", "exp", "ln",
    "log", "abs", "floor", "ceil", "factorial",
}  # fmt: skip
_OF_SEVERAL = {"max", "min", "gcd", "lcm", "choose", "permutations", "det", "mod"}
_INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan"}
_GREEK = frozenset(
    word_list(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
        "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar vartheta"
    )
)
_SIGNS = {"-", "+", "pm", "mp"}


def shown(token: Token) -> str:
    return repr(f"\\{token.text}" if token.kind == "command" else token.text)


class Expressions(ABC):
    """A position among tokens, and what reads an expression from there on."""

    def __init__(self, found: list[Token]) -> None:
        self.tokens = found
        self.position = 0
        self.depth = 0
        self.bars = 0  # open `|`

    @property
    def at(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def kind(self, ahead: int = 0) -> str:
        """Of the token ahead: a command's name, with `\\` where that is an operator of the grammar too."""
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
            raise UnreadableError("ends where more is expected")
        if kinds and self.kind() not in kinds:
            raise UnreadableError(f"holds {shown(token)}, which is not read")
        self.position += 1
        return token

    def open(self) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            raise UnreadableError("has too many brackets inside each other")

    def sum(self) -> Node:
        terms = [self.term(first=True)]
        while self.kind() in _SIGNS:
            terms.append(self.term(first=False))
        if len(terms) > 1 and not all(map(is_arithmetic, terms)):
            raise UnreadableError("adds what is no number")
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def term(self, *, first: bool) -> Node:
        sign = self.take().text if self.kind() in _SIGNS else "+"
        while self.kind() in ("-", "+"):  # `14 + -1i`
            sign = {"+": "-", "-": "+"}.get(sign, sign) if self.take().text == "-" else sign
        if self.kind() in ("$", "\\$") and first:
            self.position += 1  # `-\$5`; the unit is overlooked there
        node = self.product()
        if sign == "-" and node.kind == "based":
            return Node("based", name=f"-{node.name}", value=node.value)
        if sign != "+" and not is_arithmetic(node):
            raise UnreadableError("has a sign before what is no number")
        if sign in ("pm", "mp"):
            return Node("pm", (node,), name=sign)
        return negative(node) if sign == "-" else node

    def product(self) -> Node:
        node = self.power()
        divided: Node | None = None
        while True:
            kind = self.kind()
            if kind == "*" or (kind == "/" and self.kind(1) != "word"):
                self.position += 1
                other = self.signed_power()
                divided = other if kind == "/" else None
                node = Node("mul", (*factors(node), other)) if kind == "*" else Node("div", (node, other))
            elif kind == "mod":
                self.position += 1
                node = Node("call", (node, self.power()), name="mod")
                divided = None
            elif self.continues(node):
                if divided is not None and not is_of_numbers(node):
                    raise UnreadableError("has a factor behind a `/`, which could be read in two ways")
                factor = self.power()
                node = Node("mul", (*factors(node), factor))
                divided = None
            else:
                break
        return hoisted(node)

    def continues(self, node: Node) -> bool:
        """Whether a factor follows without a sign."""
        token = self.at
        if token is None:
            return False
        kind = self.kind()
        if kind == "number":
            previous = self.tokens[self.position - 1]
            return previous.kind in (")", "}") and not token.spaced and node.kind != "num"
        if kind == "|":
            return self.bars == 0 and node.kind not in ("set",)
        if kind == "(" and self.kind(1) == "mod":
            return False
        if kind in ("(", "[") and node.kind in ("tuple", "interval"):
            return False
        if kind == "[":
            return False
        if token.kind == "command":
            return kind in _GREEK or kind in _FUNCTIONS or kind in _OF_SEVERAL or self.begins_command(kind)
        return kind in ("letter", "(", "{")

    def signed_power(self) -> Node:
        if self.kind() in ("-", "+"):
            return negative(self.signed_power()) if self.take().text == "-" else self.signed_power()
        return self.power()

    def power(self) -> Node:
        node = self.postfix()
        if self.kind() != "^":
            return node
        self.take("^")
        if self.is_command("circ", "degree"):
            self.position += 1
            return self.minutes(node)
        if self.kind() == "{" and self.kind(1) in ("circ", "degree") and self.kind(2) == "}":
            self.position += 3
            return self.minutes(node)
        if self.kind() in ("prime", "'"):
            raise UnreadableError("holds a derivative, which is not read")
        exponent = self.exponent()
        node = Node("pow", (node, exponent))
        if self.kind() == "^":
            raise UnreadableError("has two exponents")
        return self.signs(node)

    def minutes(self, node: Node) -> Node:
        """Degrees, with the minutes and seconds behind them."""
        total = [node]
        for seconds, size in ((1, 60), (2, 3600)):
            count = 1
            while self.kind(count) == "'":
                count += 1
            if self.kind() == "number" and count - 1 == seconds:
                part = self.take()
                self.position += seconds
                total.append(Node("div", (num(part.value or 0, part.places), num(size))))
        if len(total) > 1 and all(part.kind in ("num", "div") for part in total):
            total = [num(sum((rational(part) for part in total), Fraction(0)))]
        if len(total) > 1:
            raise UnreadableError("has minutes behind what is no number")
        if (
            self.at is not None
            and self.at.text in ("C", "F")
            and self.kind(1) in ("", ",", ".")
            and self.at.kind != "command"
        ):
            self.tokens[self.position] = Token("word", self.at.text)
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
            return self.plain_number()
        return self.atom()

    def plain_number(self) -> Node:
        token = self.take("number")
        return num(token.value or 0, token.places)

    def postfix(self) -> Node:
        return self.signs(self.atom())

    def signs(self, node: Node) -> Node:
        while True:
            if self.kind() == "!":
                self.position += 1
                if self.kind() == "!":
                    raise UnreadableError("holds '!!', which is not read")
                node = Node("call", (node,), name="factorial")
            elif self.kind() in ("\\%", "%"):
                self.position += 1
                node = Node("percent", (node,))
            elif self.is_command("degree", "circ"):
                self.position += 1
                node = self.minutes(node)
            else:
                return node

    def atom(self) -> Node:
        kind = self.kind()
        token = self.at
        if token is None:
            raise UnreadableError("ends where more is expected")
        if kind == "number":
            return self.number()
        if kind == "letter":
            return self.letter()
        if kind == "word":  # `10 + John's age`
            start = self.position
            while self.kind() == "word":
                self.position += 1
            return Node("sym", name=" ".join(word.text.lower() for word in self.tokens[start : self.position]))
        if kind in ("(", "[", "{", "\\{"):
            return self.bracketed()
        if kind == "|":
            self.open()
            self.position += 1
            self.bars += 1
            inside = self.sum()
            self.bars -= 1
            self.take("|")
            self.depth -= 1
            return Node("call", (inside,), name="abs")
        if token.kind == "command":
            if self.begins_command(kind):
                return self.command(kind)
            if kind in _GREEK:
                self.position += 1
                return self.named(kind)
            if kind in _FUNCTIONS or kind in _OF_SEVERAL:
                return self.function()
        raise UnreadableError(f"holds {shown(token)}, which is not read")

    def number(self) -> Node:
        token = self.take("number")
        value = token.value or Fraction(0)
        if self.kind() == "_":
            return self.based(token.text)
        if self.kind() == "letter" and self._digits_of_base():
            return self.based(token.text)
        whole = token.places is None and value.denominator == 1
        if whole and self.is_command("frac"):
            mark = self.position
            part = self.command("frac")
            if part.kind == "div" and all(side.kind == "num" for side in part.parts):
                share, top = rational(part), part.parts[0].value or Fraction(0)
                if not 0 < share < 1 or top < 0 or top.denominator > 1:
                    raise UnreadableError("has a number before a fraction, which could be read in two ways")
                return num(value + share)
            self.position = mark
        if (
            whole
            and self.kind() == "number"
            and self.kind(1) == "/"
            and self.kind(2) == "number"
            and self.at
            and self.at.spaced
        ):
            above, _, below = self.take(), self.take(), self.take()
            if not above.value or not below.value or above.value >= below.value or above.places or below.places:
                raise UnreadableError("has a number before a fraction, which could be read in two ways")
            return num(value + above.value / below.value)
        return num(value, token.places)

    def _digits_of_base(self) -> bool:
        """Whether digits and capital letters up to F follow, and then a base above 10."""
        ahead = 0
        while (self.kind(ahead) == "letter" and self.tokens[self.position + ahead].text in "ABCDEF") or self.kind(
            ahead
        ) == "number":
            ahead += 1
        return (
            ahead > 0
            and self.kind(ahead) == "_"
            and self._base_at(self.position + ahead) in ("11", "12", "13", "14", "15", "16")
        )

    def _base_at(self, position: int) -> str:
        inside = self.tokens[position + 1 : position + 3]
        found = [token.text for token in inside if token.kind == "number"]
        return found[0] if found else ""

    def based(self, digits: str) -> Node:
        while self.kind() in ("letter", "number"):
            digits += self.take().text
        self.take("_")
        braced = self.kind() == "{"
        self.position += braced
        self.position += braced and self.kind() == "("
        token = self.take()
        self.position += braced and self.kind() == ")"
        if braced:
            self.take("}")
        base = {"two": 2, "eight": 8, "ten": 10, "sixteen": 16, **NUMBER_WORDS}.get(token.text.lower(), 0)
        if token.kind == "number" and token.places is None:
            base = int(token.value or 0)
        digits = digits.replace(",", "").replace("{}", "").upper()
        if not 2 <= base <= 36 or not all(
            letter == "." or (letter.isalnum() and letter.isascii()) for letter in digits
        ):
            raise UnreadableError("has a number with an index that is no base")
        return Node("based", name=digits.lstrip("0") or "0", value=Fraction(base))

    def letter(self) -> Node:
        if self.at is not None and self.at.text in "ABCDEF" and self._digits_of_base():
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
        if name in "fghFG" and self.kind() in ("(", "'") and len(name) == 1:
            primes = 0
            while self.kind() == "'":
                primes, self.position = primes + 1, self.position + 1
            if self.kind() == "(":
                return Node("call", tuple(self.arguments()), name=f"of {name}{primes * chr(39)}")
            return Node("sym", name=name + "'" * primes)
        return self.named(name)

    def named(self, name: str) -> Node:
        """A letter with its index and primes."""
        if self.kind() == "_":
            self.position += 1
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
        while self.kind() == "'":
            self.position += 1
            name += "'"
        return Node("sym", name=name)

    def argument(self) -> Node:
        r"""What `\frac` and `\sqrt` take: a group, or one digit, letter or command."""
        if self.kind() == "{":
            return self.group()
        token = self.at
        if token is not None and token.kind == "number":
            if not token.text.isdigit():
                raise UnreadableError("has a number without braces, which could be read in two ways")
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
        opening = "{" if self.kind() == "{" else "("
        self.open()
        self.take(opening)
        found = [self.sum()]
        while self.kind() == ",":
            self.position += 1
            found.append(self.sum())
        self.take("}" if opening == "{" else ")")
        self.depth -= 1
        return found

    def function(self) -> Node:
        name = self.take().text
        base: Node | None = None
        power: Node | None = None
        while self.kind() in ("_", "^"):
            mark = self.take().kind
            found = self.exponent()
            if mark == "_":
                base = found
            else:
                power = found
        if base is not None and name != "log":
            raise UnreadableError("has an index at a function, which is not read")
        if power is not None and power.kind == "num" and power.value == -1:
            if name not in _INVERSES:
                raise UnreadableError("has a function to the power of -1, which could be read in two ways")
            name, power = _INVERSES[name], None
        if self.kind() in ("(", "{"):
            arguments = self.arguments()
        elif self.kind() == "(" or name in _OF_SEVERAL:
            raise UnreadableError(f"has {name!r} without brackets")
        else:
            arguments = [self.bare_argument()]
        if name in _FUNCTIONS and len(arguments) != 1 and (name != "log" or len(arguments) != 2):
            raise UnreadableError(f"has {name!r} of {len(arguments)} arguments")
        if base is not None:
            arguments = [*arguments, base]
        node = Node("call", tuple(arguments), name=name)
        return node if power is None else Node("pow", (node, power))

    def bare_argument(self) -> Node:
        """`\\sin 2x`: numbers and letters in a row, and no further."""
        if self.kind() in ("-",):
            self.position += 1
            return negative(self.bare_argument())
        node = self.power()
        while self.at is not None and (
            self.at.kind == "letter"
            or self.kind() in _GREEK
            or self.kind() == "pi"
            or (node.kind == "num" and self.kind() in ("frac", "sqrt"))
        ):
            node = Node("mul", (*factors(node), self.power()))
        if self.kind() == "/" and self.kind(1) in ("number", "letter", "pi"):
            raise UnreadableError("has a `/` behind a function without brackets, which could be read in two ways")
        return node

    def group(self) -> Node:
        """The expression in braces."""
        self.open()
        bars, self.bars = self.bars, 0
        self.take("{")
        node = self.sum()
        self.take("}")
        self.bars = bars
        self.depth -= 1
        return node

    @abstractmethod
    def item(self) -> Node:
        """A member of a list."""

    @abstractmethod
    def union(self) -> Node:
        """An expression, or what is made of sets."""

    @abstractmethod
    def bracketed(self) -> Node:
        """What an opening bracket begins."""

    @abstractmethod
    def begins_command(self, name: str) -> bool:
        """Whether `command` reads it."""

    @abstractmethod
    def command(self, name: str) -> Node:
        r"""What a command such as `\frac` begins."""
