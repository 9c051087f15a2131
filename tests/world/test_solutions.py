"""Right solutions: worked by hand for one problem, and by law for many.

Exact step truth: right solutions pass, every kind of mistake is found where it is made, nothing crashes.
Students: right without misconceptions, wrong in the way of theirs, and the same for the same seed.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.step_labels import first_error
from freeprm.core.steps import step_markers
from freeprm.world.problems import INVERTIBLE, ITEMS, MAX_STEPS, NAMES, Fact, WordProblem, generate, parse
from freeprm.world.solutions import (
    LINKS,
    MISREADING,
    OPENINGS,
    STATEMENTS,
    TOTAL,
    Step,
    Student,
    Wording,
    answer,
    calculate,
    check_steps,
    draw_student,
    read_forwards,
    solve,
    solve_as,
    step_of,
    total_of,
    write,
    write_answer,
    write_step,
)


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


def test_wording_changes_what_a_step_looks_like_and_not_whether_it_is_right() -> None:
    # 4 openings x 3 links x 4 statements.
    wordings = [Wording(*parts) for parts in product(OPENINGS, LINKS, STATEMENTS)]
    written = [write_step(2, BEN_STEP, 8, wording) for wording in wordings]
    assert len(set(written)) == 48
    assert "Step 2: Now Ben = Ada 5 + 3, hence 5 + 3 = 8, we get Ben 8." in written
    for wording, step in zip(wordings, written, strict=True):
        assert check_steps(CHAIN, [ADA, step + "\n", CLEO]) == [True, True, True]
        wrong = write_step(2, BEN_STEP, 9, wording) + "\n"
        # The wrong number is stated all the same, and the next step is judged by it.
        assert check_steps(CHAIN, [ADA, wrong, CLEO]) == [True, False, False]


def test_steps_that_do_not_need_each_other_come_in_any_order() -> None:
    asked = problem(
        "Ada has 5 books. Ben has 3 more books than Ada. Eva has 4 more books than Ada. "
        "Cleo has as many books as Ben and Eva together. How many books does Cleo have?"
    )
    orders = {tuple(step.who for step in solve(asked, random.Random(seed))) for seed in range(50)}
    assert orders == {("Ada", "Ben", "Eva", "Cleo"), ("Ada", "Eva", "Ben", "Cleo")}
    assert [step.who for step in solve(asked)] == ["Ada", "Ben", "Eva", "Cleo"]


def test_64_right_solutions_differ_as_texts_and_are_right() -> None:
    rng = random.Random(0)
    for asked in islice(generate("test", seed=5), 10):
        written = [write(asked, rng) for _ in range(64)]
        assert len(set(written)) >= 63
        assert all(all(labels(asked, text)) for text in written)
        assert {text.splitlines()[-1] for text in written} == {write_answer(answer(asked))}


def test_the_item_is_never_named_in_a_step() -> None:
    assert not any(item in write(asked) for asked in islice(generate("dev", seed=1), 50) for item in ITEMS)


def labels(asked: WordProblem, solution: str) -> list[bool]:
    return check_steps(asked, [solution[start:stop] for start, stop in step_markers(solution)])


def test_a_student_without_faults_writes_the_right_solution() -> None:
    perfect, rng = Student(frozenset(), 0.0), random.Random(0)
    for asked in islice(generate("train", seed=17, difficulty=MAX_STEPS), 100):
        solution = solve_as(perfect, asked, rng)
        assert all(labels(asked, solution))
        assert solution.endswith(write_answer(answer(asked)))


def test_a_student_writes_the_same_for_the_same_seed() -> None:
    asked = next(generate("train", seed=0, difficulty=MAX_STEPS))
    student = draw_student(random.Random(3))
    assert draw_student(random.Random(3)) == student
    assert solve_as(student, asked, random.Random(1)) == solve_as(student, asked, random.Random(1))


def test_a_misreader_reads_an_inverse_fact_forwards() -> None:
    # Ivy = 3 * Kim with Ivy known: read forwards, Kim gets 12 * 3 = 36 in place of 12 / 3 = 4.
    asked = problem("Ivy has 12 pens. Ivy has 3 times as many pens as Kim. How many pens does Kim have?")
    solution = solve_as(Student(frozenset({"times"}), 0.0), asked, random.Random(0))
    assert "12 * 3 = 36" in solution.splitlines()[1]
    assert solution.endswith(write_answer(36))
    assert labels(asked, solution) == [True, False]


def test_a_misreader_reads_forward_facts_as_anyone_does() -> None:
    asked = problem("Ivy has 12 pens. Kim has 3 times as many pens as Ivy. How many pens does Kim have?")
    assert labels(asked, solve_as(Student(frozenset(INVERTIBLE), 0.0), asked, random.Random(0))) == [True, True]


def test_a_misreader_looks_again_where_the_number_cannot_be() -> None:
    # Ivy = Kim - 15 with Ivy 12: read forwards, Kim would have 12 - 15 < 0.
    asked = problem("Ivy has 12 pens. Ivy has 15 fewer pens than Kim. How many pens does Kim have?")
    assert labels(asked, solve_as(Student(frozenset({"fewer"}), 0.0), asked, random.Random(0))) == [True, True]


def test_misconceptions_are_as_frequent_as_documented() -> None:
    rng, n_draws = random.Random(0), 4000
    held = [draw_student(rng, error_scale=0.5).misreads for _ in range(n_draws)]
    for kind in INVERTIBLE:
        # Four standard errors: 4 * sqrt(0.31 * 0.69 / 4000) = 0.03.
        assert abs(sum(kind in misreads for misreads in held) / n_draws - 0.5 * MISREADING[kind]) < 0.03


def test_students_err_often_enough_to_learn_from_and_the_truth_says_where() -> None:
    rng = random.Random(0)
    errors = []
    for asked in islice(generate("train", seed=19), 300):
        solution = solve_as(draw_student(rng), asked, rng)
        errors.append(first_error(labels(asked, solution)))
    wrong = sum(error is not None for error in errors) / len(errors)
    assert 0.3 < wrong < 0.9
    assert len({error for error in errors if error is not None}) >= 3  # not always the same step
