"""Grading answers to MATH problems: our stage's workers against math-verify called plainly in one process.

With the data that FREEPRM_TEST_DATA names, answers are real: 800 responses of Qwen2.5-Math with their gold answers, and
the gold answers of MATH's test set against those of other problems of the same subject and level. Without it, they are
generated. Each worker starts cold: neither its imports nor an answer is there before the clock starts.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import NamedTuple

from benchmarks.rows import BenchmarkError, Row
from benchmarks.workloads import named_folder
from freeprm.core.answers import Verdict, at_once
from freeprm.core.answers.extraction import extract
from freeprm.graders.base import AnswerPair, judging
from freeprm.io.sandbox import Limits

WORKERS = 2
TARGET = 1000.0
"""Answers a second on two cores."""
_DATA = "FREEPRM_TEST_DATA"
UNLIKE = 0.02
"""Share of verdicts that may differ from math-verify's: words, units and letters of choices are decided otherwise."""


class Sample(NamedTuple):
    """Answers to be graded."""

    name: str
    pairs: Sequence[AnswerPair]
    """One an answer, repetitions included."""


def grading(*, quick: bool) -> Iterator[Row]:
    """Answers a second, each sample against math-verify and against what is required.

    Raises:
        BenchmarkError: more than 2 % of our verdicts are not math-verify's.
    """
    for sample in _samples(quick=quick):
        yield from compare(sample, peer_answers=150 if quick else 600)


def _samples(*, quick: bool) -> Iterator[Sample]:
    folder = named_folder(_DATA)
    if folder is not None:
        solutions = _read(folder / "qwen_rm_maj_100x8" / "rollouts.jsonl")
        pairs = [AnswerPair(extract(row["response"]) or "", row["answer"]) for row in solutions]
        yield Sample("800 responses of Qwen2.5-Math to MATH", [pair for pair in pairs if pair.pred])
        problems = sorted(_read(folder / "math" / "test.jsonl"), key=lambda row: (row["type"], row["level"]))
        answers = [row["answer"] for row in problems]
        wrong = [AnswerPair(pred, gold) for pred, gold in pairwise(answers)]
        mixed = [
            pair for right, other in zip(answers, wrong, strict=False) for pair in (AnswerPair(right, right), other)
        ]
        yield Sample("MATH gold answers, right and another problem's by turns", _some(mixed, 1_000 if quick else 8_000))
        yield Sample("MATH gold answers of another problem", _some(wrong, 500 if quick else 4_000))
    else:
        yield Sample("generated answers", list(_generated(1_000 if quick else 8_000)))


def _some(pairs: Sequence[AnswerPair], count: int) -> list[AnswerPair]:
    return random.Random(0).sample(pairs, min(count, len(pairs)))


def _read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _generated(count: int) -> Iterator[AnswerPair]:
    """Of the kinds of MATH's gold answers, as often as there: of 100, 66 numbers, 17 constants, 17 expressions."""
    rng = random.Random(0)
    for _ in range(count):
        a, b, c = (rng.randint(2, 99) for _ in range(3))
        constants = [f"\\frac{{{a}}}{{{b}}}", f"{a}\\sqrt{{{b}}}", f"\\frac{{{a}\\pi}}{{{b}}}"]
        others = [
            f"{a}x^2 - {b}x + {c}",
            f"(x + {a})(x - {b})",
            f"\\left({a}, \\frac{{{b}}}{{{c}}}\\right)",
            f"[{a}, \\infty)",
        ]
        kinds = rng.choices([[str(a), f"{a},{b}00"], constants, others], weights=[66, 17, 17])[0]
        yield AnswerPair(rng.choice(kinds), rng.choice(kinds))


def compare(sample: Sample, *, peer_answers: int) -> Iterator[Row]:
    """Two rows: against math-verify on the first `peer_answers` answers, and against what is required.

    Raises:
        BenchmarkError: see `grading`.
    """
    started, used = time.perf_counter(), _cpu_seconds()
    known = {pair: at_once(*pair) for pair in dict.fromkeys(sample.pairs)}
    hard = [pair for pair, verdict in known.items() if verdict is None]
    if hard:
        known.update(judging("math", {}, n_workers=WORKERS, limits=Limits())(hard))
    seconds = time.perf_counter() - started
    used = _cpu_seconds() - used
    ours = len(sample.pairs) / seconds
    chosen = sample.pairs[:peer_answers]
    peer, verdicts = _plain(chosen)
    _check(chosen, known, verdicts)
    details = {
        "answers": len(sample.pairs), "pairs": len(known), "pairs for math-verify": len(hard),
        "seconds": round(seconds, 3),
        "CPU seconds": round(used, 3), "answers/s if both cores were ours": round(WORKERS * len(sample.pairs) / used),
        "answers of the peer": len(chosen), "workers": WORKERS,
    }  # fmt: skip
    for name, theirs, target in (("math-verify in one process", peer, None), ("required", TARGET, 1.0)):
        yield Row(
            name=f"grading/{name}: {sample.name}, {WORKERS} workers, cache cold", ours=ours, peer=theirs,
            ratio=ours / theirs, target=target, unit="answers/s", details=details,
        )  # fmt: skip


def _cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    return sum(part.ru_utime + part.ru_stime for part in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def _plain(pairs: Sequence[AnswerPair]) -> tuple[float, list[bool]]:
    """Answers a second of math-verify as its documentation shows it, and its verdicts."""
    from math_verify import parse, verify

    started = time.perf_counter()
    verdicts = [verify(parse(f"${gold}$"), parse(f"${pred}$")) for pred, gold in pairs]
    return len(pairs) / (time.perf_counter() - started), verdicts


def _check(pairs: Sequence[AnswerPair], ours: dict[AnswerPair, Verdict | None], theirs: Sequence[bool]) -> None:
    unlike = [
        (pair, verdict)
        for pair, peer in zip(pairs, theirs, strict=True)
        if (verdict := ours[pair]) is not None and verdict.correct is not None and verdict.correct is not peer
    ]
    if len(unlike) > UNLIKE * len(pairs):
        raise BenchmarkError(f"{len(unlike)} of {len(pairs)} verdicts differ from math-verify's, e.g. {unlike[0]}")
