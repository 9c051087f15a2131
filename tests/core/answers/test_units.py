"""What words do to a number."""

from fractions import Fraction

import pytest

from freeprm.core.answers.units import Unit, is_word, measured, singular


@pytest.mark.parametrize(
    ("behind", "scale", "dimensions"),
    [
        (["km"], 1000, (("m", 1),)),
        (["cm", "^", "2"], Fraction(1, 10_000), (("m", 2),)),
        (["square", "inches"], Fraction("0.0254") ** 2, (("m", 2),)),
        (["m", "/", "s", "^", "2"], 1, (("m", 1), ("s", -2))),
        (["m", "s", "^", "-1"], 1, (("m", 1), ("s", -1))),
        (["miles", "per", "hour"], Fraction("1609.344") / 3600, (("m", 1), ("s", -1))),
        (["square", "units"], 1, (("unit", 2),)),
        (["cents"], Fraction(1, 100), (("dollar", 1),)),
        (["degrees", "Celsius"], 1, (("kelvin", 1),)),
    ],
)
def test_a_unit_has_its_size_and_dimension(behind: list[str], scale: Fraction, dimensions: tuple[object, ...]) -> None:
    factor, percent, unit = measured(behind, [])
    assert (factor, percent, unit.scale, unit.dimensions) == (1, False, scale, dimensions)


def test_scales_multiply_and_percent_is_told() -> None:
    assert measured(["million", "dollars"], [])[0] == 10**6
    assert measured(["dozen", "eggs"], [])[0] == 12
    assert measured(["percent"], [])[1]
    assert measured(["per", "cent"], [])[1]


def test_words_that_change_a_meaning_are_told_from_nouns() -> None:
    assert measured(["p.m."], [])[2] == Unit(qualifiers=frozenset({"pm"}))
    assert measured(["red", "apples"], ["about"])[2] == Unit(nouns=frozenset({"red", "apple"}))
    assert measured([], ["Adam", "loses"])[2] == Unit(nouns=frozenset({"adam"}), leading=frozenset({"loses"}))
    assert measured([], ["at", "least"])[2].qualifiers == {"least"}


@pytest.mark.parametrize(
    ("run", "behind_number", "word"),
    [
        ("xy", False, False), ("abc", False, False), ("ABCD", False, False), ("apples", False, True),
        ("odd", False, True), ("cm", True, True), ("NO", False, False), ("PM", True, True), ("ab", True, False),
    ],
)  # fmt: skip
def test_letters_in_a_row_are_a_word_or_a_product(run: str, behind_number: bool, word: bool) -> None:
    assert is_word(run, behind_number=behind_number) is word


def test_plurals_are_one_with_their_singular() -> None:
    assert [singular(word) for word in ("inches", "pennies", "feet", "apples", "glass")] == [
        "inch", "penny", "feet", "apple", "glass",
    ]  # fmt: skip
