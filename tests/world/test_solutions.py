"""Right solutions: worked by hand for one problem, and by law for many."""

from itertools import islice

import pytest

from freeprm.world.problems import MAX_STEPS, Fact, WordProblem, generate, parse
from freeprm.world.solutions import TOTAL, Step, answer, calculate, read_forwards, solve, step_of, write


def problem(text: str) -> WordProblem:
    found = parse(text)
    assert found is not None
    return found


def test_a_solution_is_written_a_line_a_step_and_ends_with_the_answer() -> None:
    # Ivy 48; Ivy = 3 * Kim, so Kim = 48 / 3 = 16; Leo = Kim + 4 = 20; Ivy + Leo = 68.
    asked = problem(
        "Ivy has 48 pens. Ivy has 3 times as many pens as Kim. Kim also has 9 cards. "
        "Leo had as many pens as Kim and then bought 4 more. How many pens do Ivy and Leo have together?"
    )
    assert write(asked) == (
        "Step 1: Ivy 48.\n"
        "Step 2: Ivy 48 = Kim * 3, so 48 / 3 = 16, Kim 16.\n"
        "Step 3: Leo = Kim 16 + 4, so 16 + 4 = 20, Leo 20.\n"
        "Step 4: Ivy 48 + Leo 20, so 48 + 20 = 68.\n"
        "The answer is 68."
    )
    assert answer(asked) == 68
    assert [step.who for step in solve(asked)] == ["Ivy", "Kim", "Leo", TOTAL]


@pytest.mark.parametrize(
    ("kind", "number", "forwards", "backwards"),
    [
        ("more", 4, ("+", 4), ("-", 4)),
        ("fewer", 4, ("-", 4), ("+", 4)),
        ("times", 4, ("*", 4), ("/", 4)),
        ("half", None, ("/", 2), ("*", 2)),
        ("bought", 4, ("+", 4), ("-", 4)),
        ("lost", 4, ("-", 4), ("+", 4)),
    ],
)
def test_a_fact_is_read_forwards_or_backwards_by_who_is_known(
    kind: str, number: int | None, forwards: tuple[str, int], backwards: tuple[str, int]
) -> None:
    fact = Fact(kind, "Ada", ("Ben",), number)
    from_ben, from_ada = step_of(fact, {"Ben": 12}), step_of(fact, {"Ada": 12})
    assert (from_ben.who, from_ben.left, from_ben.symbol, from_ben.right) == ("Ada", 12, *forwards)
    assert (from_ada.who, from_ada.left, from_ada.symbol, from_ada.right) == ("Ben", 12, *backwards)
    misread = read_forwards(fact, {"Ada": 12}, person="Ben")
    assert (misread.who, misread.left, misread.symbol, misread.right) == ("Ben", 12, *forwards)


def test_a_sum_adds_both() -> None:
    step = step_of(Fact("sum", "Ada", ("Ben", "Eva")), {"Ben": 5, "Eva": 7})
    assert (step.left, step.symbol, step.right, step.value) == (5, "+", 7, 12)


def test_division_rounds_down_and_by_zero_is_zero() -> None:
    assert calculate(7, "/", 2) == 3
    assert calculate(7, "/", 0) == 0
    assert Step("Ada", 7).value == 7


def test_every_right_solution_divides_without_remainder_and_ends_with_its_answer() -> None:
    for asked in islice(generate("train", seed=7, difficulty=MAX_STEPS), 300):
        steps = list(solve(asked))
        assert all(step.left % (step.right or 1) == 0 for step in steps if step.symbol == "/")
        assert write(asked).endswith(f"\nThe answer is {steps[-1].value}.")
        assert answer(asked) == steps[-1].value
