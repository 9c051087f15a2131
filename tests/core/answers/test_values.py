"""The values of expressions: exact where they are rational, to 50 digits else, and none where there is none."""

from fractions import Fraction
from math import e, pi, sqrt

import pytest

from freeprm.core.answers.parsing import read
from freeprm.core.answers.values import NoValueError, Reading, agree, constant, context, letters, pairs


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
    assert constant(read(text)) == value


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
    assert complex(constant(read(text))) == pytest.approx(value, rel=1e-14)


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
        constant(read(text))


def test_a_sign_is_overlooked_on_demand_but_not_inside_a_function() -> None:
    assert constant(read("20\\%")) == Fraction(1, 5)
    assert constant(read("20\\%"), Reading(signs=True)) == 20
    assert constant(read("60^\\circ"), Reading(signs=True)) == 60
    assert constant(read("\\cos 60^\\circ"), Reading(signs=True)) == Fraction(1, 2)


def test_small_values_are_told_from_zero_and_from_each_other() -> None:
    tiny, less, none = (constant(read(text)) for text in ("\\pi/60!", "\\pi/61!", "\\sqrt{6}-\\sqrt{2}\\sqrt{3}"))
    assert not agree(tiny, less)
    assert not agree(tiny, Fraction(0))
    assert none == 0


def test_letters_are_positive_where_an_expression_is_not_real_for_all() -> None:
    root, split = read("\\sqrt{ab}"), read("\\sqrt{a}\\sqrt{b}")
    found = list(pairs(root, split, Reading()))
    assert len(found) == 3  # the positive points
    assert all(agree(a, b) for a, b in found)
    assert len(list(pairs(read("x"), read("|x|"), Reading()))) == 6
    assert letters(read("f(x) + y_1")) == {"of f", "x", "y_1"}


def test_the_precision_of_others_stays() -> None:
    from mpmath import mp

    before = mp.prec
    context(50)
    constant(read("\\pi"))
    assert mp.prec == before
