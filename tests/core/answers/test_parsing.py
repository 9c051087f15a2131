"""An answer is read to its last character, or not at all."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.answers.parsing import parse
from freeprm.core.answers.tokens import ParseError, tokenise


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x = 5", "relation"), ("0 < x \\le 1", "relation"), ("1, 2", "list"), ("\\{1, 2\\}", "set"), ("(1, 2)",
        "tuple"),
        ("5 \\text{ cm}", "quantity"), ("5 apples", "quantity"), ("20\\%", "percent"), ("30^\\circ", "degree"),
        ("52_9", "based"), ("3:4", "ratio"), ("no solution", "words"), ("5 \\text{ remainder } 2", "phrase"),
        ("(1,2) \\cup [3, 4]", "cup"), ("\\mathbb{R}", "numbers"), ("\\pm 3", "list"), ("5 ft 6 in", "quantity"),
        ("1{,}000", "num"), ("12\\,000", "num"), ("1,00,000", "num"), ("1 1/2", "num"), ("½", "div"), ("xy", "mul"),
        ("7 \\pmod{11}", "residue"), ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "grid"), ("2√3", "mul"), ("five", "num"),
    ],
)  # fmt: skip
def test_an_answer_is_of_its_kind(text: str, kind: str) -> None:
    assert parse(text).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "", "3 \\otimes 4", "5 \\& 6", "7 \\Rightarrow 8", "2 \\mid 3", "\\frac{1}{", "(1, 2", "1 +",
        "4 \\angle 30^\\circ",
        "a/bc", "\\sin x/2", "3\\frac{5}{4}", "\\sqrt12", "2^3^4", "\\sin^{-2} x x^", "0.123...", "(1, 2) + 3",
        "1\\,00\\pi",
        "\\foo", "x^", "\\frac123{", "5!!", "\\log_2", "f''^2'", "٣",
        "{" * 30 + "x" + "}" * 30, "1" * 1001, "x" * 2001,
    ],
)  # fmt: skip
def test_what_is_not_wholly_read_or_could_be_two_things_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


@given(st.text(alphabet="0123xye()[]{}\\^_+-*/=<,.;:|!%$&' \nabcfrqtsin", max_size=30))
@settings(deadline=None, max_examples=150)
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ParseError):
        parse(text)


def test_every_character_of_an_answer_is_in_a_token() -> None:
    text = "x_1 = 2\\frac{3}{4}y^2 - \\sqrt[3]{5} \\le 1{,}000.5"
    assert "".join(token.text for token in tokenise(text)) == "x_1=2frac{3}{4}y^2-sqrt[3]{5}le1{,}000.5"
