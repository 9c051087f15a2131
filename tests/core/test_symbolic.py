"""What is told apart without math-verify is what math-verify tells apart."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from freeprm.core import symbolic
from freeprm.core.answers import at_once
from freeprm.core.extraction import tidy
from freeprm.core.symbolic import Comparison, Verdict, verified


@pytest.mark.parametrize(
    ("pred", "gold", "correct"),
    [
        ("x^2 + 2x + 1", "(x+1)^2", True),
        ("x^2 + 2x", "(x+1)^2", False),
        ("\\sin^2 x + \\cos^2 x", "1", True),
        ("5", "[0, 5]", False),
        ("\\frac{x}{x}", "1", True),
        ("\\log_2 8", "3", True),
        ("f(x)", "f(y)", False),
    ],
)
def test_expressions_are_compared_by_value(pred: str, gold: str, correct: bool) -> None:
    assert verified(pred, gold, Comparison(), 5) == Verdict(correct, None)


def test_settings_decide_what_is_equal() -> None:
    assert verified("f(x)", "f(y)", Comparison(strict=False), 5).correct is True
    assert verified("\\frac{2}{3}", "0.67", Comparison(decimals=2), 5).correct is True
    assert verified("$-2 \\le x \\le 7$", "$[-2,7]$", Comparison(relations_as_sets=True), 5).correct is True
    assert verified("\\frac{1}{", "5", Comparison(), 5) == Verdict(None, "answer could not be parsed")
    assert verified("\\frac{1}{", "5", Comparison(unreadable_is_wrong=True), 5) == Verdict(False, None)


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_surely_different_is_different_to_math_verify(
    real_data: Path, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (real_data / "math" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: (row["type"], row["level"]))
    answers = [tidy(row["answer"]) for row in rows]
    pairs = [pair for pair in pairwise(answers) if at_once(*pair) is None][::every]
    ours = [verified(pred, gold, Comparison(), 5) for pred, gold in pairs]
    monkeypatch.setattr(symbolic, "_surely_different", lambda gold, pred: False)
    assert [verified(pred, gold, Comparison(), 5) for pred, gold in pairs] == ours
    assert len(pairs) >= 1000 / every
