"""Numbers within a tolerance."""

import pytest

from freeprm.errors import ConfigError
from freeprm.graders.numeric import Numeric


@pytest.mark.parametrize(
    ("pred", "gold"),
    [
        ("1,000", "1000"), ("5 km", "5"), ("\\$5", "5"), ("x = 2", "2"), ("x_{1} = 2", "2"),
        ("\\frac{\\sqrt{4}}{2}", "1"), ("1/3", "0.33333333"), ("50\\%", "50"), ("2e3", "2000"), ("-5", "-5.0"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_answers_write_them(pred: str, gold: str) -> None:
    assert Numeric()(pred, gold).correct is True
    assert Numeric()(gold, pred).correct is True


@pytest.mark.parametrize(
    ("relative", "absolute", "correct"),
    [(0.0, 0.0, False), (0.01, 0.0, True), (0.009, 0.0, False), (0.0, 1.0, True), (0.0, 0.99, False)],
)
def test_the_larger_tolerance_counts(relative: float, absolute: float, correct: bool) -> None:
    assert Numeric(relative=relative, absolute=absolute)("101", "100").correct is correct  # apart by 1, or 1 %


def test_a_share_may_be_written_with_a_percent_sign() -> None:
    assert Numeric(percent=True)("50%", "0.5").correct is True
    assert Numeric()("50%", "0.5").correct is False


def test_what_is_no_number_is_not_decided() -> None:
    assert Numeric()("abc", "5") == (None, "answer is not a number")
    assert Numeric()("5", "abc") == (None, "gold answer is not a number")


def test_a_tolerance_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 0 or more"):
        Numeric(relative=-1)
