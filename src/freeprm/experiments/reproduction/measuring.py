"""What the runs of one seed say about one side of a test: a value, and what it is on draws of the problems.

A problem is drawn for all methods, generators and N at once, so that the draws of two sides may be subtracted, and
what the problems share cancels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from freeprm.core.intervals import Floats, problem_text
from freeprm.core.ledger import REFERENCE as READING_REFERENCE
from freeprm.core.rewards import aggregator
from freeprm.core.step_metrics import (
    Estimate,
    ScoredSteps,
    area_within_problems,
    calibration_error,
    f1_estimate,
    first_error_estimate,
    fit_threshold,
)
from freeprm.errors import ConfigError, DataError
from freeprm.experiments.comparison.measures import (
    BASELINES,
    Column,
    Shared,
    Way,
    average_replicates,
    on_shared_problems,
    read_accuracies,
    whole_rows,
)
from freeprm.experiments.comparison.settings import Comparison, Folders, benchmark_split, policy_split, test_split
from freeprm.experiments.comparison.tables import MethodCost, method_costs
from freeprm.experiments.reproduction.claims import OWN_ANSWERS, REFERENCE, TOGETHER, VERIFIED, ClaimTest, names
from freeprm.io.config import lookup
from freeprm.io.files import row_files
from freeprm.io.manifest import read_cost
from freeprm.io.rows import Row
from freeprm.io.runs import read_manifest
from freeprm.types import Cost


class Draws(NamedTuple):
    """A number with what it is on R bootstrap draws of its problems."""

    value: float
    replicates: Floats | None = None
    """(R,); None where nothing is drawn, as of FLOPs."""
    problems: frozenset[str] = frozenset()
    """What it is an average over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Something that a test may compare."""

    title: str
    """What figures and tables call it."""
    read: Callable[["SeedRuns", str, ClaimTest], Draws]
    """One side, by its name."""
    scale: float = 100.0
    """From the value to what is shown."""
    least: float = 0.01
    """The smallest difference that matters, where a test does not say."""
    is_amount: bool = False
    """Two sides are compared by their ratio, whose bound is 1 where a test does not say; otherwise by difference."""


@dataclass
class SeedRuns:
    """The finished runs of one seed, read as they are asked for."""

    comparison: Comparison
    folders: Folders
    seed: int
    verification: Path
    """The run folder of `freeprm verify`."""
    _steps: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    @cached_property
    def shared(self) -> Shared:
        """Accuracies of every way of choosing, over the problems in which all could choose."""
        return on_shared_problems(self.comparison, read_accuracies(self.comparison, self.folders))

    @cached_property
    def costs(self) -> dict[str, MethodCost]:
        """The bill of each method."""
        return method_costs(self.comparison, self.folders)

    @cached_property
    def levels(self) -> dict[str, float]:
        """The level of each test problem that has one."""
        folders = [self.folders.graded(test_split(name)) for name in self.comparison.generators]
        rows = (row for folder in folders for file in row_files(folder) for row in whole_rows(file))
        return {str(row["problem_id"]): float(row["level"]) for row in rows if row.get("level") is not None}

    def places(self, test: ClaimTest) -> list[str]:
        """The generators of a test: those whose answers both sides score."""
        sides = [side for side in (*names(test.first), *names(test.second)) if side in self.comparison.methods]
        scored = [self.comparison.answered_by(side) for side in sides]
        every = [name for name in self.comparison.generators if all(name in own for own in scored)]
        if test.generators == TOGETHER:
            return every
        if test.generators not in every:
            raise ConfigError(f"generators: there is no {test.generators!r}; expected one of {', '.join(every)}")
        return [test.generators]

    def rows(self, method: str, split: str) -> list[Row]:
        """What a method's scores of a split say of each response."""
        if (method, split) not in self._steps:
            self._steps[method, split] = list(_numbers(self.folders.scores(method, split)))
        return self._steps[method, split]


def differing(runs: SeedRuns, test: ClaimTest) -> Draws:
    """The first side of a test less its second, or divided by it; the first alone where there is no second.

    Raises:
        ConfigError: no such measure, or no such generator.
        DataError: a side was not measured.
    """
    measure = measure_of(test.measure)
    first = measure.read(runs, str(test.first), test)
    if test.second is None:
        return first
    second = measure_of(test.second_measure or test.measure).read(runs, test.second, test)
    if measure.is_amount:
        if not second.value:
            raise DataError(f"{test.second}: its {measure.title} is 0; expected an amount to divide by")
        return Draws(first.value / second.value)
    if first.replicates is None or second.replicates is None:
        return Draws(first.value - second.value)
    return Draws(first.value - second.value, first.replicates - second.replicates, first.problems)


def bound_of(test: ClaimTest) -> float:
    """What the test's number is held against."""
    if test.than is not None:
        return test.than
    return 1.0 if measure_of(test.measure).is_amount and test.second is not None else 0.0


def measure_of(name: str) -> Measure:
    """The measure of this name, or a ConfigError."""
    return lookup(MEASURES, name, setting="measure")


def _accuracy(family: str) -> Callable[[SeedRuns, str, ClaimTest], Draws]:
    """Accuracy by a way of choosing, averaged over generators and N."""

    def read(runs: SeedRuns, side: str, test: ClaimTest) -> Draws:
        wanted = set(runs.places(test))
        found = [
            columns for way, columns in runs.shared.accuracies.items()
            if (way == Way(None, side) if side in BASELINES else way.method == side and way.family == family)
        ]  # fmt: skip
        if not found:
            raise DataError(f"{side}: has no {family} accuracies; expected scores of the test responses")
        kept = [
            column for place, column in found[0].items()
            if place.generator in wanted and test.n in (None, place.n)
        ]  # fmt: skip
        if not kept:
            raise DataError(f"{side}: nothing was chosen among {test.n}; the sizes are {runs.comparison.sizes}")
        if test.half is not None:
            kept = [_half(column, runs.levels, test.half) for column in kept]
        return _drawn(kept)

    return read


def _half(column: Column, levels: Mapping[str, float], half: str) -> Column:
    known = {problem: levels[problem] for problem in column if problem in levels}
    if not known:
        raise DataError("no test problem has a level; expected a column `level`")
    middle = float(np.median(list(known.values())))
    return {problem: column[problem] for problem, level in known.items() if (level > middle) == (half == "harder")}


DRAWN_BY = 0
"""Seed of all draws, so that two sides, and two training runs on the same problems, have the same ones."""


def _drawn(columns: Sequence[Column]) -> Draws:
    replicates = average_replicates(columns, seed=DRAWN_BY)
    problems = frozenset(problem for column in columns for problem in column)
    return Draws(float(replicates[0]), replicates[1:], problems)


def _own_answers(runs: SeedRuns, side: str, test: ClaimTest) -> Draws:
    """How often a trained model's own answer is right, or that of the model which it was trained from."""
    if side == REFERENCE:
        same = [name for name, item in runs.comparison.generators.items() if item.model == runs.comparison.model]
        if not same:
            raise DataError(f"{runs.comparison.model} answers no test problem; expected it among the generators")
        folder = runs.folders.baseline(test_split(same[0]))
    else:
        folder = runs.folders.baseline(policy_split(side))
    column = {
        str(row["problem_id"]): float(row["accuracy"]) for row in whole_rows(folder / "accuracies.jsonl")
        if row["selector"] == "random"
    }  # fmt: skip
    return _drawn([column])


class _Judged(NamedTuple):
    """Responses that are measured, and those that a threshold is fitted on."""

    split: str
    fitted_on: str


def _with_step_truth(runs: SeedRuns, test: ClaimTest) -> list[_Judged]:
    """The benchmarks, whose first errors people named, or where there are none the answers of the generators."""
    benchmarks = {name: item.dev for name, item in runs.comparison.benchmarks.items() if item.dev}
    if benchmarks:
        return [_Judged(benchmark_split(name), benchmark_split(dev)) for name, dev in benchmarks.items()]
    return _answers(runs, test)


def _answers(runs: SeedRuns, test: ClaimTest) -> list[_Judged]:
    return [_Judged(test_split(name), "dev") for name in runs.places(test)]


def _of_responses(
    measured: Callable[[SeedRuns, str, _Judged], Estimate | None],
    where: Callable[[SeedRuns, ClaimTest], list[_Judged]],
) -> Callable[[SeedRuns, str, ClaimTest], Draws]:
    """A measure of single responses, averaged over the places where they are from."""

    def read(runs: SeedRuns, side: str, test: ClaimTest) -> Draws:
        places = where(runs, test)
        found = []
        for place in places:
            estimate = measured(runs, side, place)
            if estimate is None:
                raise DataError(f"{side}, {place.split}: nothing to measure; expected right and wrong responses")
            found.append(estimate)
        return Draws(
            float(np.mean([estimate.value for estimate in found])),
            np.mean([estimate.replicates for estimate in found], axis=0),
            frozenset(row["problem"] for place in places for row in runs.rows(side, place.split)),
        )

    return read


def _f1(runs: SeedRuns, side: str, place: _Judged) -> Estimate | None:
    fitted_on = _scored(runs.rows(side, place.fitted_on), side)
    threshold = fit_threshold(fitted_on.step_scores, fitted_on.first_errors).value
    return f1_estimate(_scored(runs.rows(side, place.split), side), threshold, seed=DRAWN_BY)


def _first_error(runs: SeedRuns, side: str, place: _Judged) -> Estimate | None:
    return first_error_estimate(_scored(runs.rows(side, place.split), side), seed=DRAWN_BY)


def _inside_problems(runs: SeedRuns, side: str, place: _Judged) -> Estimate | None:
    rows, combine = runs.rows(side, place.split), aggregator(runs.comparison.methods[side].aggregator)
    scores = [float(row["score"]) if row["steps"] is None else combine(row["steps"]) for row in rows]
    return area_within_problems(
        scores, correct=[row["correct"] for row in rows], problems=[row["problem"] for row in rows], seed=DRAWN_BY
    )


def _calibration(runs: SeedRuns, side: str, place: _Judged) -> Estimate | None:
    rows = [row for row in runs.rows(side, place.split) if row["correct"] is not None]
    outcome = np.array([row["score"] if row["steps"] is None else sum(row["steps"]) for row in rows])
    return calibration_error(
        1 / (1 + np.exp(-outcome)), correct=[bool(row["correct"]) for row in rows],
        problems=[row["problem"] for row in rows], seed=DRAWN_BY,
    )  # fmt: skip


def _scored(rows: Sequence[Row], side: str) -> ScoredSteps:
    known = [row for row in rows if row["steps"] and row["truth"]]
    if not known:
        raise DataError(f"{side}: no response has step scores and a known first error; expected some")
    return ScoredSteps(
        step_scores=[row["steps"] for row in known], first_errors=[row["first_error"] for row in known],
        problems=[row["problem"] for row in known],
    )  # fmt: skip


def _numbers(folder: Path) -> Iterator[Row]:
    """Of each scored response what is measured, without its texts."""
    for file in row_files(folder):
        for row in whole_rows(file):
            yield {
                "problem": problem_text(row["prompt"]), "steps": row.get("step_scores"), "score": row.get("score"),
                "truth": "first_error" in row, "first_error": row.get("first_error"), "correct": row.get("correct"),
            }  # fmt: skip


def _bill(name: str) -> Callable[[SeedRuns, str, ClaimTest], Draws]:
    def read(runs: SeedRuns, side: str, test: ClaimTest) -> Draws:
        amount = getattr(runs.costs[side], name)
        if amount is None:
            raise DataError(f"{side}: its {name} is not known; the manifest of some run has no FLOPs")
        return Draws(float(amount))

    return read


def _share_of_reference(runs: SeedRuns, side: str, test: ClaimTest) -> Draws:
    """FLOPs of the reference as a share of drawing the test responses and scoring them by both models."""
    total, reference = 0.0, 0.0
    for generator in runs.places(test):
        split = test_split(generator)
        drawing, scoring = _cost_of(runs.folders.sampled(split)), _cost_of(runs.folders.scores(side, split))
        parts = [*drawing.charges, *scoring.charges]
        if not drawing.charges or any(part.flops is None for part in parts):
            raise DataError(f"{side}, {generator}: the FLOPs of drawing or scoring are not known")
        total += sum(part.flops or 0 for part in parts)
        reference += sum(part.flops or 0 for part in scoring.charges if part.what == READING_REFERENCE)
    return Draws(reference / total)


def _cost_of(folder: Path) -> Cost:
    return read_cost((read_manifest(folder) or {}).get("cost", {}))


def _failed_checks(runs: SeedRuns, side: str, test: ClaimTest) -> Draws:
    """How many of the checks of `freeprm verify` whose names begin so failed."""
    failed = (read_manifest(runs.verification) or {})["counts"]["failed"]
    return Draws(float(sum(name.startswith(side) for name in failed)))


MEASURES: Mapping[str, Measure] = {
    "best_of_n": Measure(title="best-of-N, %", read=_accuracy("best_of_n")),
    "weighted_vote": Measure(title="weighted vote, %", read=_accuracy("weighted_vote")),
    OWN_ANSWERS: Measure(title="right among its own answers, %", read=_own_answers),
    "f1": Measure(title="F1 of first errors, %", read=_of_responses(_f1, _with_step_truth)),
    "first_error": Measure(
        title="first errors that are the lowest step, %", read=_of_responses(_first_error, _with_step_truth)
    ),
    "inside_problems": Measure(
        title="area inside problems", read=_of_responses(_inside_problems, _answers), scale=1
    ),
    "calibration": Measure(title="calibration error, %", read=_of_responses(_calibration, _answers)),
    "all_in": Measure(title="FLOPs of development", read=_bill("all_in"), scale=1, is_amount=True),
    "published": Measure(
        title="FLOPs as the paper charges them", read=_bill("published"), scale=1, is_amount=True
    ),
    "scoring_flops": Measure(
        title="FLOPs of scoring a response", read=_bill("scoring_flops"), scale=1, is_amount=True
    ),
    "share_of_reference": Measure(title="the reference's share of the bill, %", read=_share_of_reference),
    VERIFIED: Measure(title="checks that failed", read=_failed_checks, scale=1, least=1),
}  # fmt: skip
"""By name; a new one is a function and its entry."""
