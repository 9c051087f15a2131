"""The grader of mathematics is the comparison of `core.answers` with its settings as options."""

import pytest

from freeprm.core.answers import Verdict, equivalent
from freeprm.graders.base import Warm, grader


@pytest.mark.parametrize(
    ("pred", "gold"), [("x+1", "1+x"), ("5", "6"), ("\\frac{1}{", "5"), ("\\sqrt{8}", "2\\sqrt{2}")]
)
def test_it_says_what_equivalent_says(pred: str, gold: str) -> None:
    assert grader("math")(pred, gold) == equivalent(pred, gold)


def test_its_options_are_settings_of_the_comparison() -> None:
    assert grader("math", {"decimals": 2})("0.33", "1/3") == Verdict(True, None)
    assert grader("math", {"unreadable_is_wrong": True})("\\frac{1}{", "5") == Verdict(False, None)
    assert grader("math", {"read": ["latex"], "strict": False})("f(x)", "f(y)") == Verdict(True, None)


def test_it_can_be_warmed() -> None:
    judge = grader("math")
    assert isinstance(judge, Warm)
    judge.warm()
