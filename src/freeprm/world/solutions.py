"""Solutions of the embedded world's problems: which step computes what, and how it is written.

    Step 1: Ivy 48.
    Step 2: Ivy 48 = Kim * 3, so 48 / 3 = 16, Kim 16.
    Step 3: Ron = Kim 16 - 12, so 16 - 12 = 4, Ron 4.
    Step 4: Ivy 48 + Ron 4, so 48 + 4 = 52.
    The answer is 52.

A step writes a fact as an equation, puts the numbers that are known behind the names, computes, and says
whose number this is. A name is always followed by its number once that is known: a small model finds a
number behind a name far sooner than it learns to look one up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from freeprm.world.problems import Fact, WordProblem

SYMBOL = {"more": "+", "bought": "+", "sum": "+", "fewer": "-", "lost": "-", "times": "*", "half": "/"}
OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}
TOTAL = "together"
"""Stands for the two people asked for, in `Step.who`."""


@dataclass(frozen=True, slots=True)
class Step:
    """`claim, so left symbol right`, which gives the number of `who`; a base step has the left operand only."""

    who: str
    left: int
    symbol: str | None = None
    right: int | None = None
    claim: str = ""
    """The fact as an equation, e.g. `Ivy 48 = Kim * 3`."""

    @property
    def value(self) -> int:
        """The right result; a division is rounded down, as a student would."""
        return self.left if self.symbol is None or self.right is None else calculate(self.left, self.symbol, self.right)


def calculate(left: int, symbol: str, right: int) -> int:
    """`left symbol right` in whole numbers; division rounds down (by zero: 0)."""
    if symbol == "/":
        return left // right if right else 0
    return {"+": left + right, "-": left - right, "*": left * right}[symbol]


def computed_person(fact: Fact, known: Mapping[str, int]) -> str:
    """The person whose number this fact gives: the one of the two that is not known yet."""
    return fact.objects[0] if fact.kind != "base" and fact.subject in known else fact.subject


def step_of(fact: Fact, known: Mapping[str, int]) -> Step:
    """The one right step for a fact, given the values stated so far."""
    person = computed_person(fact, known)
    if fact.kind == "base":
        assert fact.number is not None
        return Step(person, fact.number)
    if person == fact.subject:
        return read_forwards(fact, known, person=person)
    value, symbol = known[fact.subject], SYMBOL[fact.kind]
    number = 2 if fact.number is None else fact.number
    return Step(person, value, OPPOSITE[symbol], number, f"{fact.subject} {value} = {person} {symbol} {number}")


def read_forwards(fact: Fact, known: Mapping[str, int], *, person: str) -> Step:
    """The step of a reader who takes the person to be the fact's subject, which for an inverse fact is wrong."""
    other = fact.objects[0] if person == fact.subject else fact.subject
    symbol = SYMBOL[fact.kind]
    claim = f"{person} = {other} {known[other]} {symbol}"
    if fact.kind == "sum":
        second = fact.objects[1]
        return Step(person, known[other], symbol, known[second], f"{claim} {second} {known[second]}")
    number = 2 if fact.number is None else fact.number
    return Step(person, known[other], symbol, number, f"{claim} {number}")


def total_of(problem: WordProblem, known: Mapping[str, int]) -> Step:
    """The last step of a problem that asks for two people together."""
    first, second = problem.asked
    return Step(TOTAL, known[first], "+", known[second], f"{first} {known[first]} + {second} {known[second]}")


def solve(problem: WordProblem) -> Iterator[Step]:
    """The right steps in order; the last one's value is the answer."""
    known: dict[str, int] = {}
    for fact in problem.facts:
        if fact.kind != "distractor":
            step = step_of(fact, known)
            known[step.who] = step.value
            yield step
    if len(problem.asked) == 2:
        yield total_of(problem, known)


def answer(problem: WordProblem) -> int:
    """The right answer."""
    *_, last = solve(problem)
    return last.value


def write(problem: WordProblem) -> str:
    """The right solution as text."""
    steps = list(solve(problem))
    return write_steps([(step, step.value) for step in steps], answer=steps[-1].value)


def write_steps(steps: list[tuple[Step, int]], *, answer: int) -> str:
    """Steps with the results claimed for them, then the answer line."""
    lines = [write_step(index, step, result) for index, (step, result) in enumerate(steps, 1)]
    return "\n".join([*lines, write_answer(answer)])


def write_step(index: int, step: Step, result: int) -> str:
    """One step's line."""
    if step.symbol is None:
        return f"Step {index}: {step.who} {result}."
    whose = "" if step.who == TOTAL else f", {step.who} {result}"
    return f"Step {index}: {step.claim}, so {step.left} {step.symbol} {step.right} = {result}{whose}."


def write_answer(answer: int) -> str:
    """The last line."""
    return f"The answer is {answer}."
