"""Solutions of the embedded world's problems: right ones, the truth of each step, and those of simulated students.

    Step 1: Ivy 48.
    Step 2: Ivy 48 = Kim * 3, so 48 / 3 = 16, Kim 16.
    Step 3: Ron = Kim 16 - 12, so 16 - 12 = 4, Ron 4.
    Step 4: Ivy 48 + Ron 4, so 48 + 4 = 52.
    The answer is 52.

A step writes a fact as an equation, with known numbers behind the names, computes, and states whose number the result
is. A name is always followed by its number, once known: a small model learns this far sooner than looking it up.

This is the plain wording. Solvers write as people do, each step in one of dozens of ways that say the same
(`Wording`), and steps that do not need each other in any order, so samples differ where their mathematics does not:

    Step 2: Now Ivy 48 = Kim * 3, hence 48 / 3 = 16, we get Kim 16.

A step is right if it uses some fact with the numbers stated before, inverts it if needed, and calculates correctly, in
whatever wording. So a right step after a wrong one is right: an error counts only for the step that made it.

The embedded solver's corpus is written by simulated students. By design a student has misconceptions for a whole
solution (reads inverse facts the wrong way round), so that the solver's most likely answer is often wrong, and also
slips at random. Results on the embedded world must be read with this in mind.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from freeprm.world.problems import INVERTIBLE, Fact, WordProblem

SYMBOL = {"more": "+", "bought": "+", "sum": "+", "fewer": "-", "lost": "-", "times": "*", "half": "/"}
OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}
TOTAL = "together"
"""The two people asked for together, in `Step.who`."""

OPENINGS = ("", "Then ", "Next ", "Now ")
LINKS = (", so ", ", hence ", ", thus ")
STATEMENTS = ("{who} {result}", "we get {who} {result}", "we find {who} {result}", "we have {who} {result}")
OUT_OF_TURN = 0.15
"""Probability that a step is chosen among all that are possible, rather than the first in the problem."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How a step is said; what it says is the `Step`'s."""

    opening: str = OPENINGS[0]
    link: str = LINKS[0]
    statement: str = STATEMENTS[0]


PLAIN = Wording()


def draw_wording(rng: random.Random) -> Wording:
    """One of all wordings, each as likely."""
    return Wording(rng.choice(OPENINGS), rng.choice(LINKS), rng.choice(STATEMENTS))


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


def solve(problem: WordProblem, rng: random.Random | None = None) -> Iterator[Step]:
    """The right steps, in the order of the facts or, with `rng`, in one that now and then differs.

    The last step's value is the answer.
    """
    known: dict[str, int] = {}
    for fact in in_order(problem, known, rng):
        step = step_of(fact, known)
        known[step.who] = step.value
        yield step
    if len(problem.asked) == 2:
        yield total_of(problem, known)


def in_order(problem: WordProblem, known: Mapping[str, int], rng: random.Random | None) -> Iterator[Fact]:
    """The facts one by one, each when it can be used and that of the person asked for last; the caller puts what each
    gave into `known`.
    """
    *left, last = (fact for fact in problem.facts if fact.kind != "distractor")
    while left:
        possible = [fact for fact in left if _is_next(fact, known)]
        fact = rng.choice(possible) if rng is not None and rng.random() < OUT_OF_TURN else possible[0]
        left.remove(fact)
        yield fact
    yield last


def answer(problem: WordProblem) -> int:
    """The right answer."""
    *_, last = solve(problem)
    return last.value


def write(problem: WordProblem, rng: random.Random | None = None) -> str:
    """A right solution as text: in plain wording, or with `rng` in a drawn one and a drawn order."""
    steps = list(solve(problem, rng))
    return write_steps([(step, step.value) for step in steps], rng=rng)


def write_steps(steps: list[tuple[Step, int]], rng: random.Random | None = None) -> str:
    """Steps with the results claimed for them, then the answer line with the last result."""
    lines = [
        write_step(index, step, result, PLAIN if rng is None else draw_wording(rng))
        for index, (step, result) in enumerate(steps, 1)
    ]
    return "\n".join([*lines, write_answer(steps[-1][1])])


def write_step(index: int, step: Step, result: int, wording: Wording = PLAIN) -> str:
    """One step's line."""
    statement = wording.statement.format(who=step.who, result=result)
    head = f"Step {index}: {wording.opening}"
    if step.symbol is None:
        return f"{head}{statement}."
    whose = "" if step.who == TOTAL else f", {statement}"
    return f"{head}{step.claim}{wording.link}{step.left} {step.symbol} {step.right} = {result}{whose}."


def write_answer(answer: int) -> str:
    """The last line."""
    return f"The answer is {answer}."


# The truth of each step.

_STEP = re.compile(rf"(Step \d+: )(?:{'|'.join(filter(None, OPENINGS))})?(.*)\.", re.ASCII)
_LINK = re.compile("|".join(LINKS))
_STATEMENT = re.compile("|".join(text.format(who=r"([A-Z]\w*)", result=r"(\d{1,9})") for text in STATEMENTS), re.ASCII)
_ANSWER = re.compile(r"\n(The answer is \d+\.)$")


def check_steps(problem: WordProblem, steps: Sequence[str]) -> list[bool]:
    """Whether each step is right.

    Args:
        problem: what the steps solve.
        steps: the texts of the steps, in order, each beginning with its `Step k:` marker; the last
            one holds the answer line, and is wrong without it.

    Returns:
        K booleans.
    """
    stated: dict[str, int] = {}
    labels = []
    for position, text in enumerate(steps, 1):
        line, answer = _split(text.strip())
        line, statement = _plain(line)
        right = [step for step in _possible(problem, stated) if write_step(position, step, step.value) == line]
        expected_answer = None
        if position == len(steps) and right:
            expected_answer = write_answer(right[0].value) if _is_asked(problem, right[0]) else ""
        labels.append(bool(right) and answer == expected_answer)
        stated.update(statement)
    return labels


def _split(text: str) -> tuple[str, str | None]:
    """A step's line, and the answer line after it."""
    found = _ANSWER.search(text)
    return (text[: found.start()], found[1]) if found else (text, None)


def _plain(line: str) -> tuple[str, dict[str, int]]:
    """A step's line in plain wording, and the number it states of a person; what is in no wording stays as it is."""
    step = _STEP.fullmatch(line)
    if step is None:
        return line, {}
    head, body = step.groups()
    body = _LINK.sub(PLAIN.link, body, count=1)
    rest, comma, statement = body.rpartition(", ")
    found = _STATEMENT.fullmatch(statement)
    if found is None:
        return f"{head}{body}.", {}
    who, result = filter(None, found.groups())
    return f"{head}{rest}{comma}{PLAIN.statement.format(who=who, result=result)}.", {who: int(result)}


def _possible(problem: WordProblem, stated: Mapping[str, int]) -> Iterator[Step]:
    """Every right next step, given the numbers stated so far, in every order of the numbers."""
    steps = [step_of(fact, stated) for fact in problem.facts if _is_next(fact, stated)]
    if len(problem.asked) == 2 and all(person in stated for person in problem.asked):
        steps.append(total_of(problem, stated))
    for step in steps:
        yield step
        if step.symbol in ("+", "*"):
            assert step.right is not None
            yield replace(step, left=step.right, right=step.left)


def _is_next(fact: Fact, stated: Mapping[str, int]) -> bool:
    """Whether the fact gives the number of exactly one person who has none yet."""
    # No step inverts a sum; a wrong step may state the sum before its parts.
    if fact.kind == "distractor" or (fact.kind == "sum" and fact.subject in stated):
        return False
    person = computed_person(fact, stated)
    return person not in stated and all(other in stated for other in (fact.subject, *fact.objects) if other != person)


def _is_asked(problem: WordProblem, step: Step) -> bool:
    return step.who == (problem.asked[0] if len(problem.asked) == 1 else TOTAL)


# Simulated students.

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
    for fact in in_order(problem, known, rng):
        step = step_of(fact, known)
        if fact.kind in student.misreads and step.who != fact.subject:
            misread = read_forwards(fact, known, person=step.who)
            # An impossible number of books makes even these students look again.
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
    return write_steps(steps, rng)
