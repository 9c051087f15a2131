"""Numbers are read by value however they are written, with a unit or without."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeprm.core.quantities import number, quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-42.50", Fraction(-85, 2)),
        ("−5", -5),
        (".5", Fraction(1, 2)),
        ("1,234.5", Fraction(2469, 2)),
        ("1 234", 1234),
        ("10{,}000", 10000),
        ("32,\\!348", 32348),
        ("10\\,000", 10000),
        ("\\$5", 5),
        ("-\\$0.50", Fraction(-1, 2)),
        ("5€", 5),
        ("3/4", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("2e-3", Fraction(1, 500)),
        ("004", 4),
    ],
)
def test_number_reads_the_whole_text_as_one_number(text: str, value: Fraction) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1,22", "0,111", "3, 4", "5 kg", "1/0", "2x", "1.2.3", "٣", "9" * 5000, "12:00"]
)
def test_number_is_none_for_anything_else(text: str) -> None:
    assert number(text) is None


@given(st.integers(-(10**15), 10**15))
def test_number_reads_thousands_with_commas_and_without(value: int) -> None:
    assert number(str(value)) == number(f"{value:,}") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5 apples", 5),
        ("5.0{kg}", 5),
        ("12\\text{ square cm}", 12),
        ("7 cm^2", 7),
        ("20 dollars per hour", 20),
        ("1.8 billion", 1_800_000_000),
        ("2 dozen eggs", 24),
    ],
)
def test_quantity_reads_the_number_before_a_unit(text: str, value: int) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize(
    "text", ["5", "5 pi", "5x", "5 x", "5 xy", "5 and 6", "apples", "20 percent", "5\\text{ or }6"]
)
def test_quantity_is_none_where_no_unit_follows(text: str) -> None:
    assert quantity(text) is None
