"""Simulated students, whose imperfect solutions are the corpus that the embedded solver learnt from.

By design: a student holds misconceptions for the whole of a solution (reads inverse facts the wrong
way round), so that the solver's most likely answer is often wrong, and also slips at random. Results
on the embedded world must be read with this in mind; the documentation says so wherever they appear.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from freeprm.world.problems import INVERTIBLE, WordProblem
from freeprm.world.solutions import Step, read_forwards, step_of, total_of, write_steps

# Probability that a student reads an inverse fact of each kind forwards, in every such sentence.
MISREADING: Mapping[str, float] = {"more": 0.60, "fewer": 0.55, "times": 0.62, "half": 0.55}
WRONG_PERSON = 0.02  # takes the last stated number for the one asked for, per step
SLIP = 0.02  # miscalculates, per step


@dataclass(frozen=True, slots=True)
class Student:
    """One writer of solutions."""

    misreads: frozenset[str]
    """Kinds of inverse fact that this student always reads forwards."""
    carelessness: float
    """Scale of the random errors; 0 for a student who makes none."""


def draw_student(rng: random.Random, *, error_scale: float = 1.0) -> Student:
    """A student whose misconceptions and carelessness are `error_scale` times the usual."""
    misreads = frozenset(kind for kind in INVERTIBLE if rng.random() < error_scale * MISREADING[kind])
    return Student(misreads, error_scale)


def solve_as(student: Student, problem: WordProblem, rng: random.Random) -> str:
    """The solution that this student writes."""
    known: dict[str, int] = {}
    steps: list[tuple[Step, int]] = []
    for fact in problem.facts:
        if fact.kind == "distractor":
            continue
        step = step_of(fact, known)
        if fact.kind in student.misreads and step.who != fact.subject:
            misread = read_forwards(fact, known, person=step.who)
            # A number of books that cannot be makes even these students look again.
            if misread.value >= 2 and (misread.symbol != "/" or misread.left % 2 == 0):
                step = misread
        if step.symbol and known and rng.random() < WRONG_PERSON * student.carelessness:
            step = replace(step, left=list(known.values())[-1])
        result = step.value
        if step.symbol and rng.random() < SLIP * student.carelessness:
            result += rng.choice((-10, -1, 1, 10))
        result = max(result, 0)
        known[step.who] = result
        steps.append((step, result))
    if len(problem.asked) == 2:
        total = total_of(problem, known)
        steps.append((total, total.value))
    return write_steps(steps, answer=steps[-1][1])
