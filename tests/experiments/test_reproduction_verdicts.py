"""From draws to verdicts; expected numbers are worked out beside them."""

import numpy as np
import pytest

from freeprm.experiments.reproduction.claims import ClaimTest
from freeprm.experiments.reproduction.measuring import Draws
from freeprm.experiments.reproduction.verdicts import Outcome, firm, judged, pooled, verdict_of

SPREAD = np.linspace(-1, 1, 2001)  # its 95 % interval is [-0.95, 0.95]


def compared(expect: str = "above", **given) -> ClaimTest:
    return ClaimTest(measure="best_of_n", first="ce", second="orm", expect=expect, **given)


def draws(value: float, *, half: float, n: int = 100, seed: int = 0) -> Draws:
    """A difference whose interval is value - half .. value + half."""
    return Draws(value, value + half * SPREAD / 0.95, frozenset(f"{seed}-{problem}" for problem in range(n)))


@pytest.mark.parametrize(
    ("expect", "value", "half", "verdict"),
    [  # the smallest difference that matters is 0.01
        ("above", 0.03, 0.02, "holds"),
        ("above", 0.03, 0.04, "undecided"),
        ("above", -0.03, 0.02, "fails"),
        ("above", 0.0, 0.005, "fails"),  # a gain of 0.01 is ruled out
        ("above", 0.005, 0.004, "holds"),  # a small gain is one
        ("not_below", 0.0, 0.005, "holds"),  # a loss of 0.01 is ruled out
        ("not_below", 0.0, 0.02, "undecided"),
        ("not_below", -0.03, 0.02, "fails"),
        ("below", -0.03, 0.02, "holds"),
        ("below", 0.03, 0.02, "fails"),
        ("not_above", 0.0, 0.005, "holds"),
        ("not_above", 0.03, 0.02, "fails"),
    ],
)
def test_an_interval_decides_by_what_is_expected(expect: str, value: float, half: float, verdict: str):
    outcome = judged(compared(expect), [draws(value, half=half)])
    assert outcome.verdict == verdict
    assert (outcome.low, outcome.high) == (pytest.approx(value - half), pytest.approx(value + half))


def test_the_bound_and_the_difference_that_matters_are_those_of_the_test():
    outcome = judged(compared(than=0.5, least=0.1), [draws(0.55, half=0.04)])
    assert outcome.verdict == "holds"
    assert judged(compared(than=0.5, least=0.1), [draws(0.52, half=0.03)]).verdict == "fails"


def test_an_undecided_test_says_how_many_problems_would_do():
    # Half an interval is 0.04 with 100 problems and would be 0.02, the distance from 0, with four times as many.
    assert judged(compared(), [draws(0.02, half=0.04)]).needed == 400
    # 0 and 0.01 are both 0.005 away: (0.04 / 0.005)^2 x 100 = 6,400.
    assert judged(compared(), [draws(0.005, half=0.04)]).needed == 6400
    assert judged(compared(), [draws(0.03, half=0.02)]).needed is None


def test_a_few_problems_decide_nothing():
    assert judged(compared(), [draws(0.5, half=0.1, n=30)]).verdict == "holds"
    few = judged(compared(), [draws(0.5, half=0.1, n=29)])
    assert (few.verdict, few.needed, few.p) == ("undecided", 30, None)


def test_a_ratio_decides_by_itself_and_one_is_its_bound():
    test = ClaimTest(measure="published", first="math_shepherd", second="ce")
    outcome = judged(test, [Draws(3.0), Draws(5.0)])
    assert (outcome.value, outcome.low, outcome.verdict, outcome.by_seed) == (4.0, None, "holds", (3.0, 5.0))
    assert judged(test, [Draws(0.9)]).verdict == "fails"
    ten = ClaimTest(measure="published", first="math_shepherd", second="ce", than=10)
    assert judged(ten, [Draws(4.0)]).verdict == "fails"


def test_seeds_that_disagree_widen_the_interval():
    alike = judged(compared(), [draws(0.02, half=0.02), draws(0.02, half=0.02, seed=1)])
    apart = judged(compared(), [draws(0.10, half=0.02), draws(-0.06, half=0.02, seed=1)])
    assert [alike.value, apart.value] == pytest.approx([0.02, 0.02])
    assert alike.verdict == "holds"
    # Two draws of two seeds: 0.10 twice, -0.06 twice, or one of each; a quarter of all draws is below 0.
    assert apart.verdict == "undecided"
    assert apart.low < -0.05 < 0.09 < apart.high
    assert (alike.n, apart.n) == (200, 200)


def test_seeds_that_agree_halve_the_error_on_other_problems_and_not_on_the_same():
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=2000) for _ in range(4)]
    apart = [Draws(0.0, values, frozenset({str(seed)})) for seed, values in enumerate(noise)]
    assert np.std(pooled(apart)) == pytest.approx(0.5, rel=0.06)  # of a mean of four
    same = [Draws(0.0, noise[0], frozenset("p")) for _ in range(4)]
    assert np.array_equal(pooled(same), noise[0])
    assert pooled(same[:1]) is noise[0]
    assert judged(compared(), [draws(0.02, half=0.01)] * 3).n == 100


def outcome_of(verdict: str, p: float | None = None) -> Outcome:
    return Outcome(
        test=compared(), value=0.0, low=None if p is None else -1.0, high=1.0, n=1, by_seed=(0.0,), verdict=verdict,
        needed=None, p=p,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (["holds", "holds"], "holds"), (["holds", "undecided"], "undecided"),
        (["holds", "undecided", "fails"], "fails"), ([], "not tested"),
    ],
)  # fmt: skip
def test_a_claim_holds_if_all_its_tests_do(verdicts: list[str], whole: str):
    assert verdict_of([outcome_of(verdict) for verdict in verdicts]) == whole


def test_holms_correction_is_over_all_tests_with_an_interval():
    # Four tests: the smallest p may be 0.025 / 4 = 0.00625, the next 0.025 / 3 = 0.0083, the next 0.0125.
    found = [outcome_of("holds", 0.012), outcome_of("holds", 0.001), outcome_of("holds"), outcome_of("holds", 0.008)]
    undecided = Outcome(
        test=compared(), value=0.0, low=-1.0, high=1.0, n=1, by_seed=(0.0,), verdict="undecided", needed=9, p=None
    )
    assert firm([*found, undecided]) == [True, True, False, True, False]
    assert firm([outcome_of("holds", 0.007), undecided, undecided, undecided]) == [False] * 4
