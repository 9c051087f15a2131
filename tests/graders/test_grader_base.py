"""A grader is found by its name, or is a function of the user's own, which is held to give a verdict."""

import pytest

from freeprm.core.answers import Verdict
from freeprm.errors import ConfigError, PluginError
from freeprm.graders.base import Own, QuickGrader, grader
from freeprm.io.plugins import names

NO_ANSWER, NO_GOLD = Verdict(None, "no answer found"), Verdict(None, "no gold answer")


@pytest.mark.parametrize("name", names("graders", installed=False))
def test_every_grader_keeps_the_contract(name: str) -> None:
    judge = grader(name)
    assert isinstance(judge, QuickGrader)
    assert judge("C", "C") == Verdict(True, None) or name == "numeric"
    assert judge("7", "7").correct is not False
    for empty in (None, "", " ", "$$", "\\boxed{}"):
        assert judge(empty, "7") == NO_ANSWER
        assert judge("7", empty) == NO_GOLD
        assert judge(empty, empty) == NO_GOLD  # two empty answers are not equal
    for pred, gold in [("x^2", "2x"), ("C", "D"), ("7", "8"), ("7", "C")]:
        verdict = judge(pred, gold)
        assert (verdict.correct is None) == (verdict.reason is not None)
        assert verdict.correct is not True


def test_the_members_are_those_that_are_documented() -> None:
    assert names("graders", installed=False) == ["choice", "math", "numeric", "text"]


def test_options_are_the_fields_of_a_grader() -> None:
    assert grader("numeric", {"absolute": 0.5})("7.4", "7").correct is True
    with pytest.raises(ConfigError, match=r"absolut: no such setting\. Did you mean 'absolute'"):
        grader("numeric", {"absolut": 0.5})
    with pytest.raises(PluginError, match=r"no 'maths'\. Did you mean 'math'"):
        grader("maths")


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (True, Verdict(True, None)),
        (False, Verdict(False, None)),
        (None, Verdict(None, "not decided by the grader")),
        (Verdict(True, None), Verdict(True, None)),
        (Verdict(None, "unclear"), Verdict(None, "unclear")),
    ],
)
def test_a_function_gives_true_false_none_or_a_verdict(given: bool | Verdict | None, verdict: Verdict) -> None:
    assert Own(judge=lambda pred, gold: given)("1", "2") == verdict


def test_a_function_that_gives_something_else_is_an_error() -> None:
    with pytest.raises(TypeError, match="the grader gave float; expected True, False, None or a Verdict"):
        Own(judge=lambda pred, gold: 1.0)("1", "2")  # type: ignore[arg-type, return-value]  # what users write


def test_a_function_is_not_asked_about_what_is_missing() -> None:
    asked: list[tuple[str, str]] = []
    judge = Own(judge=lambda pred, gold: asked.append((pred, gold)))  # type: ignore[func-returns-value]
    assert (judge(None, "7"), judge("7", None)) == (NO_ANSWER, NO_GOLD)
    assert asked == []


def test_a_users_own_is_a_function_a_class_or_a_dataclass() -> None:
    assert grader("hostile:judge")("5", "5").correct is True
    assert grader("hostile:judge")("?", "5") == Verdict(None, "a question")
    with pytest.raises(ConfigError, match="has no options, got length"):
        grader("hostile:judge", {"length": 5})
    with pytest.raises(PluginError, match="expected something that is called"):
        grader("hostile:HOSTILE")
    with pytest.raises(PluginError, match="no_such_module"):
        grader("no_such_module:f")
    assert grader("hostile:Longest", {"length": 1})("12", "12").correct is False
    assert grader("hostile:Longest")("12", "12").correct is True
    assert grader("hostile:Plain")("12", "12").correct is True
