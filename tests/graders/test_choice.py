"""The letter of a choice in its many spellings."""

import pytest

from freeprm.errors import ConfigError
from freeprm.graders.choice import Choice


@pytest.mark.parametrize(
    "pred",
    [
        "C", "c", "(C)", "(c)", "C)", "[C]", "C.", "C. 42", "(C) 42", "C: the third", "c) the third",
        "\\textbf{(C)}\\ 42",
        "\\text{C}", "\\mathrm{(C)}", "\\textbf{C. } 4", "**C**", "$\\boxed{C}$", "Option C", "choice (c)",
        "The answer is C", "Answer: C", "the correct option is (C)",
    ],
)  # fmt: skip
def test_every_spelling_of_a_letter_is_that_letter(pred: str) -> None:
    assert Choice()(pred, "C").correct is True
    assert Choice()("C", pred).correct is True
    assert Choice()(pred, "D").correct is False


@pytest.mark.parametrize("pred", ["42", "Cat", "A and C", "K", "C 42", "all of them"])
def test_what_is_no_letter_is_not_decided(pred: str) -> None:
    assert Choice()(pred, "C") == (None, "answer is not a choice of ABCDEFGHIJ")
    assert Choice()("C", pred) == (None, "gold answer is not a choice of ABCDEFGHIJ")


def test_the_letters_are_an_option() -> None:
    assert Choice(letters="ABCD")("E", "A").correct is None
    assert Choice(letters="KLM")("k", "K").correct is True
    with pytest.raises(ConfigError, match="expected letters, each once"):
        Choice(letters="AAB")


@pytest.mark.parametrize("pred", ["A, C", "AC", "C, A", "A C", "(A) and (C)", "A & C", "(A), (C)"])
def test_several_letters_are_a_set(pred: str) -> None:
    judge = Choice(several=True)
    assert judge(pred, "AC").correct is True
    assert judge(pred, "A").correct is False
    assert judge("A", pred).correct is False
    assert judge("C. 42", "C").correct is True
