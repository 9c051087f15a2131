"""Expressions whose evaluation would not end are told from their text; answers of real problems are none of them."""

import json
import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeprm.core.answers.limits import DIGITS, LENGTH, exceeded_limit

TOO_LARGE = f"may have more than {DIGITS:,} digits"


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^9}}",
        "9^9^9^9",
        "10^{10^{10}}",
        "10**10**10",
        "2 ^ {10^{9}}",
        "x^{99999999}",
        "((((x+1)^{99})^{99})^{99})",  # 2^(99^3) with 2 for x + 1
        "\\left(10^{10}\\right)!",
        "1000000!",
        "3!!!!",  # 3! = 6, 720, 720! of 1,747 digits, and its factorial
        "\\binom{10^9}{5}",  # to which 2^(10^9) is a bound
        "\\sum_{n=1}^{10^{12}} n",
        "7" * 20_001,
        "9^{" * 5_000,
        "\u0669^{\u0669^{\u0669^\u0669}}",  # nines of another script, which Python reads as numbers
    ],
)
def test_what_would_have_too_many_digits_is_a_hazard(text: str) -> None:
    assert exceeded_limit(text, length=10**6, depth=10**6) == TOO_LARGE


@pytest.mark.parametrize(
    "text",
    [
        "", "^", "!", "9^{", "2^{4950}", "\\frac{1}{2004!}", "e^{x^{n+1}}", "7z^{96}(4z+1)", "2^{2^{n}}",
        "5 \\cdot 10^{80}", "49,\\!479", "100^{\\circ}", "10^{\\frac{-5+\\sqrt{13}}{6}}", "\\left(2^{3}\\right)^{4}",
        "**7**: so 3000 \\times 10",
        "x_{10}^{2}", "n! = 5", "\\binom{100}{50}",
    ],
)  # fmt: skip
def test_ordinary_expressions_are_none(text: str) -> None:
    assert exceeded_limit(text) is None


def test_length_and_depth_have_limits_of_their_own() -> None:
    assert exceeded_limit("x+" * LENGTH) == "has more than 20,000 characters"
    assert exceeded_limit("x" * 11, length=10) == "has more than 10 characters"
    assert exceeded_limit("(" * 101) == "has more than 100 brackets inside each other"
    assert exceeded_limit("(" * 3, depth=3) is None
    assert exceeded_limit("\\{([x])\\}", depth=2) == "has more than 2 brackets inside each other"


@given(st.integers(2, 99), st.integers(1, 40_000))
def test_a_power_is_a_hazard_just_where_it_has_too_many_digits(base: int, exponent: int) -> None:
    digits = exponent * math.log10(base)
    if abs(digits - DIGITS) > 1:
        assert (exceeded_limit(f"{base}^{{{exponent}}}") == TOO_LARGE) == (digits > DIGITS)


@given(st.integers(2, 1000), st.integers(2, 1000), st.integers(2, 30))
def test_sums_products_and_quotients_are_never_bounded_too_low(a: int, b: int, exponent: int) -> None:
    for text, value in ((f"({a}+{b})", a + b), (f"({a} \\cdot {b})", a * b), (f"(\\frac{{{a}}}{{{b}}})", a / b)):
        # With an exponent so large that a bound below the value would let 10 % more than the digits allowed pass.
        least = math.ceil(1.1 * DIGITS / math.log10(max(value, 2)))
        assert exceeded_limit(f"{text}^{{{least}}}") == TOO_LARGE


def test_no_answer_of_math_is_a_hazard(real_data: Path) -> None:
    for split in ("train", "test"):
        for line in (real_data / "math" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            assert exceeded_limit(json.loads(line)["answer"], length=500, depth=12) is None


@pytest.mark.parametrize(
    "text", ["9^{" * 30_000, "x!" * 50_000, "a^" * 50_000, "(" * 100_000, "1" * 100_000, "\\" * 100_000]
)
def test_it_takes_linear_time(text: str) -> None:
    started = time.process_time()
    exceeded_limit(text, length=10**6, depth=10**6)
    assert time.process_time() - started < 2
