"""Solutions of the embedded world's problems: which step computes what, and how it is written.

    Step 1: Ivy has 48.
    Step 2: Ivy has 3 times as many as Kim, so Kim has 48 / 3 = 16.
    Step 3: Ivy and Kim together have 48 + 16 = 64.
    The answer is 64.

A step says again, in a fixed wording, the fact that it uses, and then computes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from freeprm.world.problems import Fact, WordProblem

SYMBOL = {"more": "+", "sum": "+", "fewer": "-", "times": "*", "half": "/"}
INVERSE_SYMBOL = {"more": "-", "fewer": "+", "times": "/", "half": "*"}
PREMISES = {
    "more": "{s} has {n} more than {o}",
    "fewer": "{s} has {n} fewer than {o}",
    "times": "{s} has {n} times as many as {o}",
    "half": "{s} has half as many as {o}",
    "sum": "{s} has as many as {o} and {o2}",
}
_SAME_AS = {"bought": "more", "lost": "fewer"}
TOTAL = "together"
"""Stands for the two people asked for, in `Step.who`."""


@dataclass(frozen=True, slots=True)
class Step:
    """`premise, so who has left symbol right`; a base step has no premise and the left operand only."""

    who: str
    left: int
    symbol: str | None = None
    right: int | None = None
    premise: str | None = None

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
    kind = _SAME_AS.get(fact.kind, fact.kind)
    first, second = (*fact.objects, "")[:2]
    premise = PREMISES[kind].format(s=fact.subject, o=first, o2=second, n=fact.number)
    if kind == "sum":
        return Step(person, known[first], "+", known[second], premise)
    number = 2 if fact.number is None else fact.number
    if person == fact.subject:
        return Step(person, known[first], SYMBOL[kind], number, premise)
    return Step(person, known[fact.subject], INVERSE_SYMBOL[kind], number, premise)


def read_forwards(step: Step, fact: Fact) -> Step:
    """The step of a reader who takes an inverse fact for a forward one."""
    return replace(step, symbol=SYMBOL[_SAME_AS.get(fact.kind, fact.kind)])


def total_of(problem: WordProblem, known: Mapping[str, int]) -> Step:
    """The last step of a problem that asks for two people together."""
    first, second = problem.asked
    return Step(TOTAL, known[first], "+", known[second], f"{first} and {second}")


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
        return f"Step {index}: {step.who} has {result}."
    calculation = f"{step.left} {step.symbol} {step.right} = {result}"
    if step.who == TOTAL:
        return f"Step {index}: {step.premise} together have {calculation}."
    return f"Step {index}: {step.premise}, so {step.who} has {calculation}."


def write_answer(answer: int) -> str:
    """The last line."""
    return f"The answer is {answer}."
