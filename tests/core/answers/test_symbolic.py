"""What math-verify is asked, and what it says."""

import pytest

from freeprm.core.answers import at_once, equivalent
from freeprm.core.answers.symbolic import AnswerComparison, Verdict, is_for_engine, verified


@pytest.mark.parametrize(
    ("pred", "gold", "correct"),
    [
        ("x^2 + 2x + 1", "(x+1)^2", True),
        ("x^2 + 2x", "(x+1)^2", False),
        ("5", "[0, 5]", False),
        ("\\sum_{n=1}^{3} n", "6", True),
        ("\\int_0^1 x dx", "\\frac{1}{3}", False),
        ("f(x)", "f(y)", False),
    ],
)
def test_expressions_are_compared_by_value(pred: str, gold: str, correct: bool) -> None:
    assert verified(pred, gold, AnswerComparison(), 5) == Verdict(correct, None)


def test_settings_decide_what_is_equal() -> None:
    assert verified("f(x)", "f(y)", AnswerComparison(strict=False), 5).correct is True
    assert verified("\\frac{2}{3}", "0.67", AnswerComparison(decimals=2), 5).correct is True
    assert verified("$-2 \\le x \\le 7$", "$[-2,7]$", AnswerComparison(relations_as_sets=True), 5).correct is True
    assert verified("\\frac{1}{", "5", AnswerComparison(), 5) == Verdict(None, "answer could not be parsed")
    assert verified("\\frac{1}{", "5", AnswerComparison(unreadable_is_wrong=True), 5) == Verdict(False, None)


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("\\sum_{n=1}^{\\infty} \\frac{1}{n^2}", True),
        ("\\int_0^1 x^2 dx + 1", True),
        ("\\sum_{n=1}^{3} n + \\mathrm{e}", False),  # it drops the e
        ("\\sum_{n=1}^{3} n \\otimes 2", False),
        ("\\sum_{n=1}^{3} \\frac\\pi 2", False),
        ("x + 1", False),  # read here
    ],
)
def test_only_what_it_reads_whole_is_for_the_engine(text: str, engine: bool) -> None:
    assert is_for_engine(text) is engine
    assert (at_once(text, f"1 + {text}") is None) is engine


def test_sums_and_products_of_matrices_are_compared_by_the_engine() -> None:
    total = "\\begin{pmatrix}1 & 2\\end{pmatrix} + \\begin{pmatrix}3 & 4\\end{pmatrix}"
    assert equivalent(total, "\\begin{pmatrix}4 & 6\\end{pmatrix}").correct is True
    assert equivalent(total, "\\begin{pmatrix}4 & 7\\end{pmatrix}").correct is False
