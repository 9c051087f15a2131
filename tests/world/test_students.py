"""Students: right without misconceptions, wrong in the way of theirs, and the same for the same seed."""

import random
from itertools import islice

from freeprm.core.steps import step_markers
from freeprm.world.checking import check_steps, first_error
from freeprm.world.problems import INVERTIBLE, MAX_STEPS, WordProblem, generate, parse
from freeprm.world.solutions import read_forwards, write, write_step
from freeprm.world.students import MISREADING, Student, draw_student, solve_as


def problem(text: str) -> WordProblem:
    found = parse(text)
    assert found is not None
    return found


def labels(asked: WordProblem, solution: str) -> list[bool]:
    return check_steps(asked, [solution[start:stop] for start, stop in step_markers(solution)])


def test_a_student_without_faults_writes_the_right_solution() -> None:
    perfect, rng = Student(frozenset(), 0.0), random.Random(0)
    for asked in islice(generate("train", seed=17, difficulty=MAX_STEPS), 100):
        assert solve_as(perfect, asked, rng) == write(asked)


def test_a_student_writes_the_same_for_the_same_seed() -> None:
    asked = next(generate("train", seed=0, difficulty=MAX_STEPS))
    student = draw_student(random.Random(3))
    assert draw_student(random.Random(3)) == student
    assert solve_as(student, asked, random.Random(1)) == solve_as(student, asked, random.Random(1))


def test_a_misreader_reads_an_inverse_fact_forwards() -> None:
    # Ivy = 3 * Kim with Ivy known: read forwards, Kim gets 12 * 3 = 36 in place of 12 / 3 = 4.
    asked = problem("Ivy has 12 pens. Ivy has 3 times as many pens as Kim. How many pens does Kim have?")
    solution = solve_as(Student(frozenset({"times"}), 0.0), asked, random.Random(0))
    assert solution.splitlines()[1] == write_step(2, read_forwards(asked.facts[1], {"Ivy": 12}, person="Kim"), 36)
    assert labels(asked, solution) == [True, False]


def test_a_misreader_reads_forward_facts_as_anyone_does() -> None:
    asked = problem("Ivy has 12 pens. Kim has 3 times as many pens as Ivy. How many pens does Kim have?")
    assert solve_as(Student(frozenset(INVERTIBLE), 0.0), asked, random.Random(0)) == write(asked)


def test_a_misreader_looks_again_where_the_number_cannot_be() -> None:
    # Ivy = Kim - 15 with Ivy 12: read forwards, Kim would have 12 - 15 < 0.
    asked = problem("Ivy has 12 pens. Ivy has 15 fewer pens than Kim. How many pens does Kim have?")
    assert solve_as(Student(frozenset({"fewer"}), 0.0), asked, random.Random(0)) == write(asked)


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
