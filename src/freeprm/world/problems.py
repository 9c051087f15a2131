"""Word problems about who has how many: their facts, their sentences, and an endless seeded supply.

A problem is a chain of facts over named people and one kind of item. Each fact relates an unknown person to a known
one, and may be stated from either side: "Ivy has 3 times as many books as Kim", with Ivy known, requires a division.
Such inverse facts invite conceptual mistakes, as does an irrelevant sentence in some problems.

Solutions are in `solutions.py`.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Split = Literal["pretrain", "train", "dev", "test"]

NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivy", "Jon",
    "Kim", "Leo", "Mia", "Ned", "Ora", "Pam", "Ron", "Sue", "Tim", "Zoe",
)  # fmt: skip
ITEMS = ("books", "coins", "marbles", "stamps", "shells", "cards", "pens", "apples")

MIN_STEPS, MAX_STEPS, DEFAULT_DIFFICULTY = 3, 8, 5
MAX_VALUE = 99

# Share of the space of problems, in percent, that belongs to each split; a problem's split is a
# hash of its text, so the splits cannot overlap whatever the seeds are.
_SPLIT_SHARES: Mapping[Split, int] = {"pretrain": 70, "train": 15, "dev": 5, "test": 10}

# Every phrasing reads {s} = {o} op {n}; which of the two is known is decided by the other facts.
PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "base": ("{s} has {n} {item}.", "{s} owns {n} {item}.", "There are {n} {item} in the bag of {s}."),
    "more": (
        "{s} has {n} more {item} than {o}.",
        "{s} owns {n} {item} more than {o}.",
        "Compared with {o}, {s} has {n} more {item}.",
    ),
    "fewer": (
        "{s} has {n} fewer {item} than {o}.",
        "{s} owns {n} {item} less than {o}.",
        "Compared with {o}, {s} has {n} fewer {item}.",
    ),
    "times": ("{s} has {n} times as many {item} as {o}.", "{s} owns {n} times the {item} of {o}."),
    "half": ("{s} has half as many {item} as {o}.", "{s} owns half the {item} of {o}."),
    "sum": (
        "{s} has as many {item} as {o} and {o2} together.",
        "{s} owns the same number of {item} as {o} and {o2} combined.",
    ),
    "bought": ("{s} had as many {item} as {o} and then bought {n} more.",),
    "lost": ("{s} had as many {item} as {o} and then lost {n} of them.",),
    "distractor": ("{s} also has {n} {other}.", "There are {n} {other} on the table of {s}."),
}  # fmt: skip
QUESTIONS: Mapping[str, str] = {
    "one": "How many {item} does {s} have?",
    "together": "How many {item} do {s} and {o} have together?",
}
INVERTIBLE = ("more", "fewer", "times", "half")


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence: `subject = objects (kind) number`; a base fact has no objects."""

    kind: str
    subject: str
    objects: tuple[str, ...] = ()
    number: int | None = None


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A question with the facts it states, in the order stated."""

    text: str
    item: str
    facts: tuple[Fact, ...]
    asked: tuple[str, ...]
    """One person, or two whose items are asked for together."""


def generate(split: Split, *, seed: int = 0, difficulty: int = DEFAULT_DIFFICULTY) -> Iterator[WordProblem]:
    """Endless distinct problems of `MIN_STEPS` to `difficulty` solution steps, the same for the same arguments.

    Raises:
        ValueError: the difficulty is not in `MIN_STEPS..MAX_STEPS`, or the split is unknown.
    """
    if not MIN_STEPS <= difficulty <= MAX_STEPS:
        raise ValueError(f"difficulty {difficulty}: expected a number of steps from {MIN_STEPS} to {MAX_STEPS}")
    if split not in _SPLIT_SHARES:
        raise ValueError(f"split {split!r}: expected one of {', '.join(_SPLIT_SHARES)}")
    rng = random.Random(f"{split}/{seed}/{difficulty}")
    seen: set[bytes] = set()
    while True:
        problem = draw_problem(rng, n_steps=rng.randint(MIN_STEPS, difficulty))
        digest = hashlib.blake2b(problem.text.encode(), digest_size=8).digest()
        if split_of(problem.text) == split and digest not in seen:
            seen.add(digest)
            yield problem


def split_of(text: str) -> Split:
    """The split of a problem, by its text."""
    bucket = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % 100
    for split, share in _SPLIT_SHARES.items():
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares add up to 100")


def draw_problem(rng: random.Random, *, n_steps: int) -> WordProblem:
    """One random problem that takes exactly `n_steps` steps to solve."""
    together = n_steps > MIN_STEPS and rng.random() < 0.25
    n_people = n_steps - together
    while True:
        people = rng.sample(NAMES, n_people)
        chain = _draw_chain(rng, people)
        if chain is not None:
            break
    asked = (rng.choice(people[:-1]), people[-1]) if together else (people[-1],)
    item, other = rng.sample(ITEMS, 2)
    facts = list(chain)
    if rng.random() < 0.3:
        facts.insert(rng.randint(1, n_people), Fact("distractor", rng.choice(people), (), rng.randint(2, 30)))
    sentences = [_phrase(rng.choice(PHRASINGS[fact.kind]), fact, item=item, other=other) for fact in facts]
    kind = "together" if together else "one"
    question = QUESTIONS[kind].format(s=asked[0], o=asked[-1], item=item)
    return WordProblem(" ".join([*sentences, question]), item, tuple(facts), asked)


def parse(text: str) -> WordProblem | None:
    """The problem stated by a question's text, or None if it is not one of this world's."""
    *sentences, question = re.split(r"(?<=[.?]) ", text.strip())
    asked, item = _match_question(question)
    if not asked or item is None:
        return None
    matched = [_match(sentence) for sentence in sentences]
    if any(fact is None for fact in matched):
        return None
    return WordProblem(text.strip(), item, tuple(fact for fact in matched if fact is not None), asked)


def _draw_chain(rng: random.Random, people: list[str]) -> tuple[Fact, ...] | None:
    """Facts that give each person in turn a whole value of 2 to `MAX_VALUE`; None for a dead end."""
    values = {people[0]: rng.randint(4, 48)}
    facts = [Fact("base", people[0], (), values[people[0]])]
    for person in people[1:]:
        for _ in range(20):
            fact, value = _draw_fact(rng, person, values)
            if value is not None and 2 <= value <= MAX_VALUE:
                break
        else:
            return None
        facts.append(fact)
        values[person] = value
    return tuple(facts)


def _draw_fact(rng: random.Random, person: str, values: Mapping[str, int]) -> tuple[Fact, int | None]:
    kinds = ["more", "fewer", "times", "half"] * 2 + ["bought", "lost"] + ["sum"] * (len(values) > 1)
    kind = rng.choice(kinds)
    known = list(values)
    other = known[-1] if rng.random() < 0.7 else rng.choice(known)
    if kind == "sum":
        other, second = rng.sample(known, 2)
        return Fact(kind, person, (other, second)), values[other] + values[second]
    number = 2 if kind == "half" else rng.randint(2, 5) if kind == "times" else rng.randint(2, 20)
    written = None if kind == "half" else number
    if kind in INVERTIBLE and rng.random() < 0.5:
        value = _inverse(kind, values[other], number)
        return Fact(kind, other, (person,), written), value
    return Fact(kind, person, (other,), written), _forward(kind, values[other], number)


def _forward(kind: str, known: int, number: int) -> int | None:
    """`known op number`; None where a division leaves a remainder."""
    if kind == "half":
        return known // 2 if known % 2 == 0 else None
    return {"more": known + number, "bought": known + number, "fewer": known - number, "lost": known - number,
            "times": known * number}[kind]  # fmt: skip


def _inverse(kind: str, known: int, number: int) -> int | None:
    """x such that `known = x op number`."""
    if kind == "times":
        return known // number if known % number == 0 else None
    return {"more": known - number, "fewer": known + number, "half": known * 2}[kind]


def _phrase(template: str, fact: Fact, *, item: str, other: str) -> str:
    first, second = (*fact.objects, "", "")[:2]
    return template.format(s=fact.subject, o=first, o2=second, n=fact.number, item=item, other=other)


_NAME, _WORD = r"[A-Z]\w*", r"\w+"
_FIELDS = {"s": _NAME, "o": _NAME, "o2": _NAME, "n": r"\d{1,9}", "item": _WORD, "other": _WORD}


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template)
    for field, pattern in _FIELDS.items():
        escaped = escaped.replace(re.escape("{" + field + "}"), f"(?P<{field}>{pattern})")
    return re.compile(escaped)


_SENTENCES = [(kind, _pattern(template)) for kind, templates in PHRASINGS.items() for template in templates]
_QUESTIONS = [_pattern(template) for template in QUESTIONS.values()]


def _match(sentence: str) -> Fact | None:
    for kind, pattern in _SENTENCES:
        if found := pattern.fullmatch(sentence):
            groups = found.groupdict()
            number = groups.get("n")
            return Fact(kind, groups["s"], _people(groups, "o", "o2"), int(number) if number else None)
    return None


def _match_question(question: str) -> tuple[tuple[str, ...], str | None]:
    for pattern in _QUESTIONS:
        if found := pattern.fullmatch(question):
            return _people(found.groupdict(), "s", "o"), found["item"]
    return (), None


def _people(groups: Mapping[str, str | None], *fields: str) -> tuple[str, ...]:
    return tuple(name for field in fields if (name := groups.get(field)))
