"""Exact step truth: right solutions pass, every kind of mistake is found where it is made, nothing crashes."""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.steps import step_markers
from freeprm.world.checking import check_steps, first_error
from freeprm.world.problems import ITEMS, MAX_STEPS, NAMES, Fact, WordProblem, generate, parse
from freeprm.world.solutions import Step, read_forwards, step_of, total_of, write, write_answer, write_step


def problem(text: str) -> WordProblem:
    found = parse(text)
    assert found is not None
    return found


# Ada 5, Ben 5 + 3 = 8, Cleo 5 + 8 = 13.
CHAIN = problem(
    "Ada has 5 books. Ben has 3 more books than Ada. Cleo has as many books as Ada and Ben together. "
    "How many books does Cleo have?"
)
OF_ADA, OF_BEN, OF_CLEO = CHAIN.facts


def line(index: int, fact: Fact, known: Mapping[str, int], *, result: int | None = None) -> str:
    """The step that this fact asks for, with this result in place of the right one."""
    step = step_of(fact, known)
    return write_step(index, step, step.value if result is None else result) + "\n"


def answered(step: str, number: int) -> str:
    return step.strip() + "\n" + write_answer(number)


ADA, BEN = line(1, OF_ADA, {}), line(2, OF_BEN, {"Ada": 5})
CLEO = answered(line(3, OF_CLEO, {"Ada": 5, "Ben": 8}), 13)
BEN_STEP = step_of(OF_BEN, {"Ada": 5})


def split(text: str) -> list[str]:
    return [text[start:stop] for start, stop in step_markers(text)]


def test_every_right_solution_is_right_in_every_step() -> None:
    for asked in islice(generate("train", seed=11, difficulty=MAX_STEPS), 300):
        steps = split(write(asked))
        assert check_steps(asked, steps) == [True] * len(steps)


def test_operands_of_sums_and_products_may_be_swapped() -> None:
    swapped = write_step(2, replace(BEN_STEP, left=3, right=5), 8)
    assert check_steps(CHAIN, [ADA, swapped, CLEO]) == [True, True, True]


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(line(2, OF_BEN, {"Ada": 5}, result=9), id="miscalculated"),
        pytest.param(write_step(2, replace(BEN_STEP, symbol="-"), 2), id="wrong operation"),
        pytest.param(line(2, OF_BEN, {"Ada": 6}), id="a number nobody stated"),
        pytest.param(write_step(2, replace(BEN_STEP, left=6), 9), id="another number than the one behind the name"),
        pytest.param(line(2, replace(OF_BEN, number=4), {"Ada": 5}), id="a fact nobody stated"),
        pytest.param(line(2, replace(OF_BEN, subject="Eva"), {"Ada": 5}), id="nobody of the problem"),
        pytest.param(line(2, OF_ADA, {}), id="stated before"),
        pytest.param(line(5, OF_BEN, {"Ada": 5}), id="wrong marker"),
        pytest.param(write_step(2, Step("Ben", 8), 8), id="without what it comes from"),
        pytest.param(answered(BEN, 8), id="answers what was not asked"),
        pytest.param("Step 2: Let me think.", id="no step of this world"),
    ],
)
def test_a_mistake_is_found_where_it_is_made(second: str) -> None:
    labels = check_steps(CHAIN, [ADA, second, CLEO])
    assert labels[:2] == [True, False]
    assert first_error(labels) == 1


def test_a_right_step_after_a_wrong_one_is_right() -> None:
    wrong = line(2, OF_BEN, {"Ada": 5}, result=9)
    consistent = answered(line(3, OF_CLEO, {"Ada": 5, "Ben": 9}), 14)
    assert check_steps(CHAIN, [ADA, wrong, consistent]) == [True, False, True]


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(CLEO.removesuffix("\n" + write_answer(13)), id="no answer"),
        pytest.param(answered(line(3, OF_CLEO, {"Ada": 5, "Ben": 8}), 12), id="not the number found"),
        pytest.param(answered(CLEO, 13), id="twice"),
    ],
)
def test_the_last_step_is_wrong_without_its_answer(last: str) -> None:
    assert check_steps(CHAIN, [ADA, BEN, last]) == [True, True, False]


def test_a_solution_that_stops_early_is_wrong_in_its_last_step() -> None:
    assert check_steps(CHAIN, [ADA, BEN.strip()]) == [True, False]


def test_a_total_needs_both_people() -> None:
    asked = problem("Ada has 5 books. Ben has 3 more books than Ada. How many books do Ada and Ben have together?")
    total = total_of(asked, {"Ada": 5, "Ben": 8})
    assert check_steps(asked, [ADA, BEN, answered(write_step(3, total, 13), 13)]) == [True, True, True]
    assert check_steps(asked, [ADA, answered(write_step(2, total, 13), 13)]) == [True, False]


def test_a_sum_stated_before_its_parts_is_not_read_backwards() -> None:
    # Cleo and Ben are stated, Ada is not: the sum gives nobody's number.
    steps = [write_step(1, Step("Cleo", 8), 8), write_step(2, Step("Ben", 6), 6)]
    assert check_steps(CHAIN, [*steps, "Step 3: ?"]) == [False, False, False]
    assert check_steps(CHAIN, [*steps, line(3, replace(OF_CLEO, kind="more", number=2), {"Cleo": 8})])[2] is False


def test_an_inverse_fact_must_be_turned_round() -> None:
    # Ada = 3 * Ben, so Ben = 12 / 3 = 4, and not 12 * 3 = 36.
    asked = problem("Ada has 12 books. Ada has 3 times as many books as Ben. How many books does Ben have?")
    base, fact = asked.facts
    misread = write_step(2, read_forwards(fact, {"Ada": 12}, person="Ben"), 36)
    assert check_steps(asked, [line(1, base, {}), answered(line(2, fact, {"Ada": 12}), 4)]) == [True, True]
    assert check_steps(asked, [line(1, base, {}), answered(misread, 36)]) == [True, False]


def test_a_number_too_long_to_read_is_a_wrong_step() -> None:
    assert check_steps(CHAIN, [ADA.replace("5", "1" * 5000)]) == [False]


NUMBERS = st.integers(0, 30)
STEPS = st.builds(
    Step, st.sampled_from(NAMES[:4]), NUMBERS, st.sampled_from([None, *"+-*/"]), NUMBERS, st.text(max_size=9)
)
LINES = st.builds(write_step, st.integers(1, 4), STEPS, NUMBERS)


@settings(deadline=None)
@given(steps=st.lists(st.one_of(st.text(max_size=30), LINES, st.sampled_from([ADA, BEN, CLEO])), max_size=5))
def test_every_text_gets_one_label_a_step(steps: list[str]) -> None:
    assert len(check_steps(CHAIN, steps)) == len(steps)


def test_any_order_of_stating_any_numbers_gets_labels() -> None:
    rng = random.Random(0)
    for asked in islice(generate("train", seed=13, difficulty=MAX_STEPS), 200):
        steps = [write_step(index, Step(rng.choice(NAMES), 1), rng.randint(0, 60)) for index in range(1, 9)]
        assert len(check_steps(asked, steps)) == 8


def test_the_item_is_never_named_in_a_step() -> None:
    assert not any(item in write(asked) for asked in islice(generate("dev", seed=1), 50) for item in ITEMS)


def test_first_error_is_none_where_all_are_right() -> None:
    assert first_error([True, True]) is None
    assert first_error([True, False, False]) == 1
    assert first_error([]) is None
