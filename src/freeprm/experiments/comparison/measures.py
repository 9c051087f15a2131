"""What the methods of a comparison are worth: accuracies of every column, their average, and paired differences.

A metric of one column has `n` and the group `generator=NAME`; one of the average over all columns has neither.

A problem that several generators answered is drawn for all of their columns at once, so that what its difficulty does
to all columns is in the interval; two methods get the same draws, so that it is not in that of their difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from freeprm.core.intervals import Floats, Interval, bootstrap, percentile_interval, resample
from freeprm.errors import DataError, RecordError
from freeprm.experiments.comparison.settings import Comparison, Folders, benchmark_split, test_split
from freeprm.io.files import read_rows
from freeprm.io.rows import Row
from freeprm.io.runs import METRICS, read_metrics
from freeprm.types import Metric

Column = Mapping[str, float]
"""Accuracy by problem, 0..1."""
NULL = "random_distinct_text"
BASELINES = ("random", NULL, "majority", "oracle")
"""Ways of choosing without scores; `random` is the generator's pass@1, and see `core.selectors` for the next."""
STEP_METRICS = (
    "processbench_f1", "first_error_accuracy", "step_auc", "response_auc", "response_auc_within_problems",
)  # fmt: skip
FITTED = "threshold=dev"


class Place(NamedTuple):
    """A column of the table."""

    generator: str
    n: int


class Way(NamedTuple):
    """A row of the table: whose scores (None: nobody's) choose, and how: best_of_n/min, weighted_vote/min, ..."""

    method: str | None
    selector: str

    @property
    def family(self) -> str:
        """The selector without its aggregator."""
        return self.selector.partition("/")[0]


Accuracies = Mapping[Way, Mapping[Place, Column]]


class Shared(NamedTuple):
    """Accuracies of all ways over the same problems."""

    accuracies: Accuracies
    left_out: Mapping[Place, int]
    """Problems of a column in which some way could not choose among n."""


class Measured(NamedTuple):
    """What the stages of a comparison gave."""

    metrics: list[Metric]
    left_out: Mapping[Place, int]
    """See `Shared`."""
    weightings: Mapping[str, str]
    """By method, how its scores became the weights of votes."""


def measured(comparison: Comparison, folders: Folders, *, seed: int) -> Measured:
    """All metrics of a comparison whose stages are finished.

    Raises:
        DataError: a column has no problem in which every method could choose.
        RunFolderError: a stage's folder lacks its metrics.
    """
    shared = on_shared_problems(comparison, read_accuracies(comparison, folders))
    metrics = accuracy_metrics(shared.accuracies, against=comparison.against, seed=seed)
    metrics += tie_metrics(read_accuracies(comparison, folders, column="tied"), shared.accuracies, seed=seed)
    metrics += step_metrics(comparison, folders)
    return Measured(metrics, shared.left_out, read_weightings(comparison, folders))


def read_weightings(comparison: Comparison, folders: Folders) -> dict[str, str]:
    """By method, how the selection stage weighed its votes."""
    found: dict[str, str] = {}
    for method in comparison.methods:
        for generator in comparison.answered_by(method):
            folder = folders.selection(method, test_split(generator))
            for metric in read_metrics(folder) if (folder / METRICS).exists() else []:
                if metric.weighting is not None:
                    found[method] = metric.weighting
    return found


def read_accuracies(comparison: Comparison, folders: Folders, *, column: str = "accuracy") -> Accuracies:
    """The accuracy of each problem, as the selection stage wrote it: baselines first, then methods.

    Args:
        comparison: whose.
        folders: where.
        column: `accuracy`, or `tied` for how often a choice shared the first place, which bounds have not.
    """
    found: dict[Way, dict[Place, dict[str, float]]] = {Way(None, name): {} for name in BASELINES}
    for generator in comparison.generators:
        split = test_split(generator)
        _read(folders.baseline(split), None, generator, column, found)
        for method in comparison.methods:
            if generator in comparison.answered_by(method):
                _read(folders.selection(method, split), method, generator, column, found)
    return found


def on_shared_problems(comparison: Comparison, accuracies: Accuracies) -> Shared:
    """Only the problems of each column in which every way could choose among n, as where some responses have no score.

    Methods that do not score a generator's answers have no such column.

    Raises:
        DataError: there is none in a column; names the method that could choose in the fewest.
    """
    kept: dict[Way, dict[Place, Column]] = {way: {} for way in accuracies}
    left_out: dict[Place, int] = {}
    for place in dict.fromkeys(place for columns in accuracies.values() for place in columns):
        own = {
            way: columns.get(place, {}) for way, columns in accuracies.items()
            if way.method is None or place.generator in comparison.answered_by(way.method)
        }  # fmt: skip
        common = set.intersection(*(set(column) for column in own.values()))
        if not common:
            worst = min(own, key=lambda way: len(own[way]))
            raise DataError(
                f"{place.generator} @{place.n}: no problem has {place.n} responses with scores of every method; "
                f"{worst.method or worst.selector} has them for {len(own[worst])} problems. Responses that its context "
                f"does not hold have no score. Take it out of the comparison, or {place.n} out of sizes"
            )
        if lost := max(map(len, own.values())) - len(common):
            left_out[place] = lost
        for way, column in own.items():
            kept[way][place] = {problem: value for problem, value in column.items() if problem in common}
    return Shared(kept, left_out)


def accuracy_metrics(accuracies: Accuracies, *, against: str | None, seed: int) -> list[Metric]:
    """Each column, and for methods that have all columns their average, and the differences of averages.

    Args:
        accuracies: of all methods.
        against: the method that others are compared with, besides the majority vote.
        seed: of the bootstrap.

    Raises:
        DataError: a method was measured on other problems than what it is compared with.
    """
    return [*_means(accuracies, seed=seed), *_differences(accuracies, against, seed=seed)]


def tie_metrics(ties: Accuracies, accuracies: Accuracies, *, seed: int) -> list[Metric]:
    """How often each way of choosing shared the first place, by column and on average, on the problems of accuracies.

    Args:
        ties: as from `read_accuracies`.
        accuracies: as from `on_shared_problems`.
        seed: of the bootstrap.
    """
    kept = {
        way: {
            place: {problem: column[problem] for problem in accuracies[way][place] if problem in column}
            for place, column in columns.items()
        }
        for way, columns in ties.items() if columns
    }  # fmt: skip
    return list(_means(kept, metric="tied", seed=seed))


def whole_rows(file: Path) -> Iterator[Row]:
    """The rows of a stage's file; a broken one is raised."""
    for _, row in read_rows(file):
        if isinstance(row, RecordError):
            raise row
        yield row


def _read(
    folder: Path, method: str | None, generator: str, column: str, found: dict[Way, dict[Place, dict[str, float]]]
) -> None:
    for row in whole_rows(folder / "accuracies.jsonl"):
        if (row["scorer"] is None) == (method is None) and column in row:
            columns = found.setdefault(Way(method, row["selector"]), {})
            columns.setdefault(Place(generator, row["n"]), {})[row["problem_id"]] = row[column]


def _means(accuracies: Accuracies, *, metric: str = "accuracy", seed: int) -> Iterator[Metric]:
    complete = _complete(accuracies)
    for way, columns in accuracies.items():
        for place, column in columns.items():
            value, low, high = bootstrap(list(column.values()), seed=seed)
            yield Metric(
                metric=metric, value=value, low=low, high=high, count=len(column), scorer=way.method,
                selector=way.selector, n=place.n, seed=seed, group=f"generator={place.generator}",
            )  # fmt: skip
        if way not in complete:
            continue
        value, low, high = column_average(list(columns.values()), seed=seed)
        yield Metric(
            metric=metric, value=value, low=low, high=high, count=_n_problems(columns), scorer=way.method,
            selector=way.selector, seed=seed,
        )  # fmt: skip


def _complete(accuracies: Accuracies) -> list[Way]:
    """The ways that chose in every column."""
    most = max(map(len, accuracies.values()), default=0)
    return [way for way, columns in accuracies.items() if len(columns) == most]


def _differences(accuracies: Accuracies, against: str | None, *, seed: int) -> Iterator[Metric]:
    """Averages of methods less that of the majority vote, and less that of one method by the same kind of choice.

    Best-of-N also less its null, choosing among distinct texts.
    """
    majority, null = Way(None, "majority"), Way(None, NULL)
    scored = [way for way in _complete(accuracies) if way.method is not None]
    for way in scored:
        yield _difference(accuracies, way, majority, f"{way.selector} - majority", way.method, seed=seed)
        if way.family == "best_of_n":
            yield _difference(accuracies, way, null, f"{way.selector} - {NULL}", way.method, seed=seed)
        rival = next((other for other in scored if other.method == against and other.family == way.family), None)
        if rival is not None and rival.method != way.method:
            yield _difference(accuracies, way, rival, way.selector, f"{way.method} - {rival.method}", seed=seed)


def _difference(
    accuracies: Accuracies, first: Way, second: Way, selector: str, scorer: str | None, *, seed: int
) -> Metric:
    columns, others = accuracies[first], accuracies[second]
    value, low, high = average_difference(
        list(columns.values()), [others.get(place, {}) for place in columns], seed=seed
    )
    return Metric(
        metric="accuracy_difference", value=value, low=low, high=high, count=_n_problems(columns), scorer=scorer,
        selector=selector, seed=seed,
    )  # fmt: skip


def step_metrics(comparison: Comparison, folders: Folders) -> Iterator[Metric]:
    """Those of the evaluation stage, areas of responses included, at the threshold from dev where there is one."""
    splits = {name: test_split(name) for name in comparison.generators} | {
        name: benchmark_split(name) for name in comparison.benchmarks
    }
    for method in comparison.methods:
        for name, split in splits.items():
            folder = folders.evaluation(method, split)
            if not (folder / METRICS).exists():
                continue
            for metric in read_metrics(folder):
                fitted = metric.metric != "processbench_f1" or metric.selector == FITTED
                if metric.metric in STEP_METRICS and fitted:
                    yield replace(metric, scorer=method, group=f"generator={name}")


def _n_problems(columns: Mapping[Place, Column]) -> int:
    return len({problem for column in columns.values() for problem in column})


def column_average(columns: Sequence[Column], *, seed: int) -> Interval:
    """The mean over columns of each column's mean over its problems, with its 95 % bootstrap interval over problems.

    Raises:
        DataError: a column without problems, or no column.
    """
    return _average_interval(average_replicates(columns, seed=seed))


def average_difference(first: Sequence[Column], second: Sequence[Column], *, seed: int) -> Interval:
    """The average of one method less that of another, over the same problems in each column.

    Raises:
        DataError: the columns differ in number or in their problems.
    """
    if [set(column) for column in first] != [set(column) for column in second]:
        raise DataError("two methods were not measured on the same problems; expected the same columns of both")
    return _average_interval(average_replicates(first, seed=seed) - average_replicates(second, seed=seed))


def average_replicates(columns: Sequence[Column], *, seed: int) -> Floats:
    """(1 + R,) the average over columns, then what it is on each draw of the problems.

    Raises:
        DataError: a column without problems, or no column.
    """
    if not columns or not all(columns):
        raise DataError("a column without problems; expected at least one in each")
    problems = sorted({problem for column in columns for problem in column})
    times = resample(len(problems), seed=seed)  # (R, P)
    times = np.vstack([np.ones((1, len(problems))), times])  # (1 + R, P)
    total = np.zeros(len(times))
    for column in columns:
        there = np.array([problem in column for problem in problems], dtype=np.float64)  # (P,)
        values = np.array([column.get(problem, 0.0) for problem in problems])
        drawn = times @ there
        total += np.divide(times @ values, drawn, out=np.full(len(times), np.nan), where=drawn > 0)
    return total / len(columns)


def _average_interval(means: Floats) -> Interval:
    return percentile_interval(float(means[0]), means[1:])
