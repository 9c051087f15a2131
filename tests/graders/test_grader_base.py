"""A grader is found by its name, or is a function of the user's own, which is held to give a verdict.

Answers that are meant to hang or to break a grader come back within their limit, and cost nobody else's verdict.
"""

import time
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freeprm.core.answers import Verdict
from freeprm.errors import ConfigError, PluginError
from freeprm.graders.base import AnswerPair, ExtractedAnswer, Own, QuickGrader, Work, extracting, grader, judging
from freeprm.io.plugins import names
from freeprm.io.sandbox import Limits
from patience import PATIENCE

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


SECONDS = 1.0
LATE = f"took longer than {SECONDS:g} s"  # of any pair, where the machine does other things meanwhile
LIMITS = Limits(seconds=SECONDS, memory_mib=512)
HOSTILE = {
    "a tower": "9^{9^{9^9}}",
    "another tower": "10^{10^{10}}",
    "a tower without braces": "9**9**9**9",
    "braces": "{" * 10_000 + "1" + "}" * 10_000,
    "brackets": "(" * 90 + "x" + ")" * 90,
    "bars": "|x" * 30 + "|" * 30,
    "digits": "7" * 100_000,
    "letters": "x" * 100_000,
    "open braces": "{" * 100_000,
    "fractions": "\\frac{1}{" * 5_000 + "2" + "}" * 5_000,
    "fewer fractions": "\\frac{1}{1+" * 60 + "2" + "}" * 60,
    "a sum": "\\sum_{n=1}^{10^{12}} \\frac{1}{n^2}",
    "a sum of powers": "\\sum_{n=1}^{9999} n^{n}",
    "a product": "\\prod_{n=1}^{99999} (n+1)",
    "nested powers": "((((x+1)^{99})^{99})^{99})",
    "an expansion": "(a+b+c+d+f+g+h)^{40}",
    "a factorial": "1000000!",
    "factorials": "5!!!!!!!!",
    "an integral": "\\int_0^{\\infty} \\frac{\\sin(x^3) e^{-x^2}}{x^5+x+1} dx",
    "an integral without bounds": "\\int \\frac{x^9 e^{x}}{\\sin(x) + \\cos(x^2)} dx",
    "a limit": "\\lim_{x \\to 0} \\frac{\\sin(\\tan(x)) - \\tan(\\sin(x))}{x^7}",
    "a matrix": "\\begin{pmatrix}" + "\\\\".join(["&".join(["1"] * 500)] * 500) + "\\end{pmatrix}",
    "a smaller matrix": "\\begin{pmatrix}" + "\\\\".join(["&".join(["x^2"] * 30)] * 30) + "\\end{pmatrix}",
    "an open environment": "\\begin{pmatrix} 1 & 2 \\\\ 3",
    "a set": "\\{" + ", ".join(f"x^{{{n}}}" for n in range(3_000)) + "\\}",
    "roots": "\\sqrt{" * 90 + "x" + "}" * 90,
    "signs": "-" * 15_000 + "1",
    "an interval": "(" + "9" * 5_000 + ", \\infty) \\cup [" + "8" * 4_000 + ", 1)",
    "unicode": "𝟗^{𝟗^{𝟗}} \u202e\u0669\u0300\ud83d\ude00∞√½²",
    "a NUL byte": "\x00\x001\x00",
    "half a surrogate pair": "5\ud800",
    "a comparison": "x" + " < x + 1" * 60,
    "a polynomial": " + ".join(f"{n}x^{{{n}}}y^{{{n + 1}}}" for n in range(400)),
    "a logarithm": "\\log_{2}(\\log_{3}(\\log_{4}(10^{10000})))",
    "a modulus": "7^{7^{7}} \\bmod 1000000007",
    "text": "the answer is therefore " * 700,
    "dollars": "$" * 15_001,
    "commas": "," * 15_000,
    "backslashes": "\\" * 15_001,
}


@pytest.fixture(scope="module")
def judge() -> Work[AnswerPair, Verdict]:
    made = judging("math", {}, n_workers=2, limits=LIMITS)
    dict(made([AnswerPair("x+1", "1+x")]))
    return made


def verdicts(judge: Work[AnswerPair, Verdict], pairs: list[AnswerPair]) -> dict[AnswerPair, Verdict]:
    found = dict(judge(pairs))
    assert found.keys() == set(pairs)
    for verdict in found.values():
        assert (verdict.correct is None) == (verdict.reason is not None)
    return found


def test_hostile_answers_cost_their_own_verdicts_and_no_more_than_their_limits(
    judge: Work[AnswerPair, Verdict],
) -> None:
    ordinary = [AnswerPair(f"{number}x + {number}", f"{number}(1 + x)") for number in range(2, 22)]
    hostile = [AnswerPair(text, "x^2 + 1") for text in HOSTILE.values()]
    started = time.monotonic()
    found = verdicts(judge, [pair for both in zip(hostile, ordinary * 3, strict=False) for pair in both])
    assert time.monotonic() - started < len(hostile) * SECONDS + PATIENCE
    assert all(found[pair].correct is True or found[pair].reason == LATE for pair in ordinary)
    assert any(found[pair].correct for pair in ordinary)
    assert all(found[pair].correct is not True for pair in hostile)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_comes_back_within_its_limit(judge: Work[AnswerPair, Verdict], name: str) -> None:
    hostile = [AnswerPair(HOSTILE[name], "x^2 + 1"), AnswerPair("x^2 + 1", HOSTILE[name])]
    started = time.monotonic()
    found = verdicts(
        judge, [AnswerPair("2x", "x + x"), *hostile, AnswerPair("x(x+1)", "x^2")]
    )  # the two of them side by side
    assert time.monotonic() - started < PATIENCE
    assert all(found[pair].correct is not True for pair in hostile)
    for pair, right in ((AnswerPair("2x", "x + x"), True), (AnswerPair("x(x+1)", "x^2"), False)):
        assert found[pair].correct is right or found[pair].reason == LATE


PIECES = [
    *"{}()[]^_!|,+-=<&$% xnei½9", "\\\\", "10", "999999", "0.5", "\\frac", "\\frac{1}{2}", "\\sqrt", "\\sum_{n=1}",
    "\\prod", "\\int_0^1", "\\lim_{x \\to 0}", "\\infty", "\\sin", "\\log", "\\binom", "\\pi", "\\cdot", "\\left(",
    "\\right)", "\\begin{pmatrix}", "\\end{pmatrix}", "\\text{", "\\boxed{", "\\{", "\\}", "\\cup", "\\le", "\\in",
    "^{99}", "^{9^{9}}", "!!", "\x00", "\u0669", "dx", "\\pm", "\\%",
]  # fmt: skip
TEXTS = st.builds(
    lambda pieces, times, end: "".join(pieces) * times + end,
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=12),
    st.sampled_from([1, 1, 1, 2, 5, 40]),
    st.text(max_size=3),
)


def fuzz(judge: Work[AnswerPair, Verdict], pred: str, gold: str) -> None:
    started = time.monotonic()
    verdicts(judge, [AnswerPair(pred, gold)])
    assert time.monotonic() - started < PATIENCE


RELAXED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@given(TEXTS, TEXTS | st.just("x^2 + 1"))
@settings(max_examples=15, derandomize=True, **RELAXED)
def test_any_text_comes_back_within_its_limit(judge: Work[AnswerPair, Verdict], pred: str, gold: str) -> None:
    fuzz(judge, pred, gold)


@pytest.mark.slow
@given(TEXTS, TEXTS | st.just("x^2 + 1"))
@settings(max_examples=5000, **RELAXED)
def test_thousands_of_texts_come_back_within_their_limit(
    judge: Work[AnswerPair, Verdict], pred: str, gold: str
) -> None:
    fuzz(judge, pred, gold)


def test_a_users_own_grader_may_hang_or_break_and_says_how() -> None:
    limits = Limits(seconds=5, memory_mib=512)  # enough to fill the memory on a loaded machine
    judge = judging("hostile:judge", {}, n_workers=2, limits=limits)
    started = time.monotonic()
    names = ["a loop in C", "memory", "a crash", "an error", "?", "-", "5", "6", "sleep"]
    found = verdicts(judge, [AnswerPair(name, "5") for name in names])
    assert time.monotonic() - started < PATIENCE
    assert {pair.pred: verdict.reason or verdict.correct for pair, verdict in found.items()} == {
        "a loop in C": "took longer than 5 s",
        "sleep": "took longer than 5 s",
        "memory": "needed more than 512 MiB of memory",
        "a crash": "its process ended with SIGSEGV",
        "an error": "ValueError: invalid literal for int() with base 10: 'x'",
        "?": "a question",
        "-": "not decided by the grader",
        "5": True,
        "6": False,
    }


def test_a_users_own_extractor_works_within_limits_too() -> None:
    find = extracting(["boxed", "hostile:find"], n_workers=1, limits=LIMITS)
    found = dict(find(["\\boxed{4}", "so 5", "", "a loop in C", "an error"]))
    assert found == {
        "\\boxed{4}": ExtractedAnswer("4", None),
        "so 5": ExtractedAnswer("5", None),
        "": ExtractedAnswer(None, None),
        "a loop in C": ExtractedAnswer(None, "took longer than 1 s"),
        "an error": ExtractedAnswer(None, "ValueError: invalid literal for int() with base 10: 'x'"),
    }


def test_verdicts_do_not_depend_on_the_number_of_workers() -> None:
    pairs = [AnswerPair(f"{a}x + {b}", f"{b} + x{c}") for a in range(2, 5) for b in range(3) for c in range(2, 5)]
    make = partial(judging, "math", {}, limits=Limits(seconds=60))
    assert dict(make(n_workers=1)(pairs)) == dict(make(n_workers=3)(pairs))
