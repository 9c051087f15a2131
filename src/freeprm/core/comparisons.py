"""Accuracies of selectors, and their differences on the same problems, as metrics with intervals."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from freeprm.core.candidates import WHOLE
from freeprm.core.intervals import Interval, bootstrap, paired_difference
from freeprm.core.selectors import Selector
from freeprm.types import Metric


class Cell(NamedTuple):
    """What was chosen by, and among how many."""

    selector: Selector
    n: int


Table = Mapping[Cell, Mapping[str, float]]
"""Accuracy, 0..1, of each problem; a problem with fewer than n samples is not there."""


def accuracy_metrics(
    table: Table,
    *,
    metric: str = "accuracy",
    seed: int,
    problems: frozenset[str] | None = None,
    group: str | None = None,
) -> Iterator[Metric]:
    """The mean of each cell.

    Args:
        table: accuracies by problem.
        metric: what the metrics are called.
        seed: of the bootstrap.
        problems: those to average over; None: all.
        group: what these problems have in common, as `column=value`.
    """
    for (selector, n), by_problem in table.items():
        values = [value for problem, value in by_problem.items() if problems is None or problem in problems]
        if values:
            yield _metric(metric, selector, n, bootstrap(values, seed=seed), count=len(values), seed=seed, group=group)


def difference_metrics(table: Table, *, seed: int) -> Iterator[Metric]:
    """Every selector with scores less the majority vote, then scorer less scorer with the same selector.

    Where one scorer gives step scores and the other one score a response, each aggregator is compared with the latter.
    """
    scored = [cell for cell in table if cell.selector.scorer is not None]
    for cell in scored:
        vote = Cell(Selector(None, "majority"), cell.n)
        yield from _difference(
            table, cell, vote, Selector(cell.selector.scorer, f"{cell.selector.name} - majority"), seed
        )
    for first, second in combinations(scored, 2):
        a, b = first.selector, second.selector
        if first.n != second.n or a.scorer == b.scorer or not _comparable(a.name, b.name):
            continue
        name = a.name if a.name == b.name else f"{a.name} - {b.name}"
        yield from _difference(table, first, second, Selector(f"{a.scorer} - {b.scorer}", name), seed)


def problems_by_value(values: Mapping[str, object], column: str) -> dict[str, frozenset[str]]:
    """`column=value` -> the problems with that value, in order of the values as text."""
    found: dict[str, set[str]] = {}
    for problem, value in values.items():
        found.setdefault(f"{column}={value}", set()).add(problem)
    return {group: frozenset(found[group]) for group in sorted(found)}


def _comparable(a: str, b: str) -> bool:
    (kind, _, how), (other_kind, _, other_how) = a.partition("/"), b.partition("/")
    return kind == other_kind and (how == other_how or WHOLE in (how, other_how))


def _difference(table: Table, first: Cell, second: Cell, named: Selector, seed: int) -> Iterator[Metric]:
    shared = [problem for problem in table[first] if problem in table.get(second, {})]
    if shared:
        interval = paired_difference([table[first][p] for p in shared], [table[second][p] for p in shared], seed=seed)
        yield _metric("accuracy_difference", named, first.n, interval, count=len(shared), seed=seed, group=None)


def _metric(
    name: str, selector: Selector, n: int, interval: Interval, *, count: int, seed: int, group: str | None
) -> Metric:
    return Metric(
        metric=name,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        count=count,
        scorer=selector.scorer,
        selector=selector.name,
        n=n,
        seed=seed,
        group=group,
    )
