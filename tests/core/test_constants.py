"""The values of constants, and that two readers agree on them: ours and math-verify's."""

import json
from fractions import Fraction
from itertools import pairwise
from math import pi, sqrt
from pathlib import Path

import pytest

from freeprm.core.answers import Comparison, at_once
from freeprm.core.constants import constant
from freeprm.core.extraction import tidy
from freeprm.core.symbolic import verified


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\frac12", Fraction(1, 2)),
        ("-\\dfrac{1}{2}", Fraction(-1, 2)),
        ("5 \\cdot 10^{-3}", Fraction(1, 200)),
        ("\\left(2\\right)(3)", 6),
        ("-2^2", -4),
        ("2^{-1}", Fraction(1, 2)),
        ("\\sqrt{9}", 3),
        ("\\sqrt[3]{8}", 2),
        ("4^{1/2}", 2),
        ("1/2/2", Fraction(1, 4)),
        ("2 - 3 + .5", Fraction(-1, 2)),
    ],
)
def test_rational_constants_are_exact(text: str, value: Fraction) -> None:
    assert constant(text) == value
    assert isinstance(constant(text), Fraction)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\frac{3\\sqrt{2}}{4}", 3 * sqrt(2) / 4),
        ("2\\pi - 1", 2 * pi - 1),
        ("\\sqrt{2}\\sqrt{3}", sqrt(6)),
        ("\\pi^{2}", pi**2),
    ],
)
def test_others_have_their_value(text: str, value: float) -> None:
    found = constant(text)
    assert found is not None
    assert float(found) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "2\\frac13", "2 3", "1/0", "\\sqrt{-4}", "2^10", "\\frac{123}", "\\sqrt23", "2^{3", "3!", "90^\\circ",
        "5\\%", "9^{9^{9^9}}", "1,000", "(1, 2)", "e", "i", "2^{2^{1/2}}", "1" * 201, "(" * 50 + "1", "0^{-1}", "²",
    ],
)  # fmt: skip
def test_what_is_no_constant_or_could_be_read_in_two_ways_has_no_value(text: str) -> None:
    assert constant(text) is None


@pytest.mark.parametrize(
    ("pred", "gold", "correct"),
    [
        ("\\frac{\\sqrt{12}}{2}", "\\sqrt{3}", True),
        ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}", True),
        ("\\sqrt{2} + \\sqrt{3}", "\\sqrt{5 + 2\\sqrt{6}}", True),
        ("\\sqrt{2}", "1.414214", True),  # to six decimals
        ("\\sqrt{2}", "1.4142", False),
        ("\\frac{22}{7}", "\\pi", False),
        ("2^{100}", "1267650600228229401496703205376", True),
    ],
)
def test_constants_are_compared_at_once(pred: str, gold: str, correct: bool) -> None:
    for one, other in ((pred, gold), (gold, pred)):
        verdict = at_once(one, other)
        assert verdict is not None
        assert verdict.correct is correct


@pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_decided_at_once_is_decided_as_by_math_verify(real_data: Path, every: int) -> None:
    # Gold answers of MATH of one subject and level against each other, most of them plain and different; and against
    # themselves written in another way, most of them plain and equal.
    lines = (real_data / "math" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: (row["type"], row["level"]))
    answers = [row["answer"] for row in rows]
    pairs = [*pairwise(answers), *((f"0 + ({answer})", answer) for answer in answers)][::every]
    plain = [(pred, gold, verdict.correct) for pred, gold in pairs if (verdict := at_once(pred, gold)) is not None]
    assert len(plain) > len(pairs) / 2
    unlike = [
        (pred, gold, correct)
        for pred, gold, correct in plain
        if correct is not None and verified(tidy(pred), tidy(gold), Comparison(), 5).correct not in (correct, None)
    ]
    assert unlike == []
