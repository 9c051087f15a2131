"""The exact truth of each step of a solution in the embedded world.

A step is right when it writes what some fact says with the numbers stated before, turns it round where it
must, and calculates correctly. So a right step after a wrong one is right: only the first error is blamed
on the step that made it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from freeprm.world.problems import Fact, WordProblem
from freeprm.world.solutions import TOTAL, Step, computed_person, step_of, total_of, write_answer, write_step

_STATED = re.compile(r"Step \d+: (?:.*, )?(?P<who>[A-Z]\w*) (?P<value>\d{1,9})\.", re.ASCII)
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
        right = [step for step in _possible(problem, stated) if write_step(position, step, step.value) == line]
        expected_answer = None
        if position == len(steps) and right:
            expected_answer = write_answer(right[0].value) if _is_asked(problem, right[0]) else ""
        labels.append(bool(right) and answer == expected_answer)
        if found := _STATED.fullmatch(line):
            stated[found["who"]] = int(found["value"])
    return labels


def first_error(labels: Sequence[bool]) -> int | None:
    """Index of the first wrong step, None where all are right."""
    return next((index for index, right in enumerate(labels) if not right), None)


def _split(text: str) -> tuple[str, str | None]:
    """A step's line, and the answer line after it."""
    found = _ANSWER.search(text)
    return (text[: found.start()], found[1]) if found else (text, None)


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
    """The fact gives the number of just one person who has none yet."""
    # No step turns a sum round; a wrong one may state it before what it is the sum of.
    if fact.kind == "distractor" or (fact.kind == "sum" and fact.subject in stated):
        return False
    person = computed_person(fact, stated)
    return person not in stated and all(other in stated for other in (fact.subject, *fact.objects) if other != person)


def _is_asked(problem: WordProblem, step: Step) -> bool:
    return step.who == (problem.asked[0] if len(problem.asked) == 1 else TOTAL)
