"""The values of expressions: exact where they are rational, to 50 digits else, and none where there is none."""

from fractions import Fraction
from math import e, pi, sqrt

import pytest

from freeprm.core.answers.parsing import parse
from freeprm.core.answers.values import Interpretation, NoValueError, agree, constant, context, letters, pairs


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\frac12", Fraction(1, 2)),
        ("5 \\cdot 10^{-3}", Fraction(1, 200)),
        ("\\left(2\\right)(3)", 6),
        ("-2^2", -4),
        ("\\sqrt{9}", 3),
        ("\\sqrt[3]{-8}", -2),
        ("4^{1/2}", 2),
        ("1/2/2", Fraction(1, 4)),
        ("1/2 \\cdot 3", Fraction(3, 2)),
        ("2 - 3 + .5", Fraction(-1, 2)),
        ("2\\frac13", Fraction(7, 3)),
        ("0.1\\overline{6}", Fraction(1, 6)),  # 1/10 + 6/90
        ("\\binom{5}{2} + 3!", 16),
        ("\\lfloor -1.5 \\rfloor", -2),
        ("\\log_2 8", 3),
        ("\\sin 30^\\circ", Fraction(1, 2)),
        ("|3 - 5|", 2),
        ("(1+i)(1-i)", 2),
        ("\\sqrt{2}\\sqrt{2} - 2", 0),
    ],
)
def test_rational_constants_are_exact(text: str, value: Fraction) -> None:
    assert constant(parse(text)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\frac{3\\sqrt{2}}{4}", 3 * sqrt(2) / 4),
        ("2\\pi - 1", 2 * pi - 1),
        ("\\pi^{2}", pi**2),
        ("exp(2)", e**2),
        ("\\sqrt{-2}", 1j * sqrt(2)),
    ],
)
def test_others_have_their_value(text: str, value: complex) -> None:
    assert complex(constant(parse(text))) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    "text",
    [
        "1/0",
        "0^{-1}",
        "\\ln 0",
        "\\tan 90^\\circ",
        "(-8)^{1/3}",
        "2^{2^{40}}",
        "e^{e^{20}}",
        "9999999!",
        "\\binom{-1}{2}",
    ],
)
def test_what_has_no_value_or_two_or_a_huge_one_has_none(text: str) -> None:
    with pytest.raises(NoValueError):
        constant(parse(text))


def test_a_sign_is_overlooked_on_demand_but_not_inside_a_function() -> None:
    assert constant(parse("20\\%")) == Fraction(1, 5)
    assert constant(parse("20\\%"), Interpretation(ignore_signs=True)) == 20
    assert constant(parse("60^\\circ"), Interpretation(ignore_signs=True)) == 60
    assert constant(parse("\\cos 60^\\circ"), Interpretation(ignore_signs=True)) == Fraction(1, 2)


def test_small_values_are_told_from_zero_and_from_each_other() -> None:
    tiny, less, none = (constant(parse(text)) for text in ("\\pi/60!", "\\pi/61!", "\\sqrt{6}-\\sqrt{2}\\sqrt{3}"))
    assert not agree(tiny, less)
    assert not agree(tiny, Fraction(0))
    assert none == 0


def test_letters_are_positive_where_an_expression_is_not_real_for_all() -> None:
    root, split = parse("\\sqrt{ab}"), parse("\\sqrt{a}\\sqrt{b}")
    found = list(pairs(root, split, Interpretation()))
    assert len(found) == 3  # the positive points
    assert all(agree(a, b) for a, b in found)
    assert len(list(pairs(parse("x"), parse("|x|"), Interpretation()))) == 6
    assert letters(parse("f(x) + y_1")) == {"of f", "x", "y_1"}


def test_the_precision_of_others_stays() -> None:
    from mpmath import mp

    before = mp.prec
    context(50)
    constant(parse("\\pi"))
    assert mp.prec == before
