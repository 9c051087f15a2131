"""Answers as words."""

import pytest

from freeprm.graders.text import Text


@pytest.mark.parametrize(
    ("options", "pred", "gold", "correct"),
    [
        ({}, "Paris", "paris", True),
        ({"ignore_case": False}, "Paris", "paris", False),
        ({}, "\\text{New  York}.", "new york", True),
        ({}, "ﬁve", "five", True),  # a ligature
        ({}, "forty-two", "forty two", False),
        ({"ignore_punctuation": True}, "forty-two!", "fortytwo", True),
        ({}, "the Nile", "Nile", False),
        ({"ignore_articles": True}, "The Nile", "Nile", True),
        ({"ignore_articles": True}, "another", "other", False),
        ({}, "STRASSE", "straße", True),
    ],
)
def test_texts_are_compared_without_what_the_options_overlook(
    options: dict[str, bool], pred: str, gold: str, correct: bool
) -> None:
    assert Text(**options)(pred, gold).correct is correct


def test_a_text_of_which_nothing_is_left_is_no_answer() -> None:
    judge = Text(ignore_articles=True, ignore_punctuation=True)
    assert judge("The", "x") == (None, "no answer found")
    assert judge("x", "...") == (None, "no gold answer")
