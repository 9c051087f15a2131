"""Metrics arranged as tables; shared by the page and the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freeprm.report.wording import ACCURACY, PASS, TIED, is_difference, metric_label, selector_label
from freeprm.types import Metric

_ORACLE = "oracle"
_CEILINGS = (_ORACLE, PASS)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the accuracy table: one way to choose, by one scorer, at every N."""

    selector: str
    scorer: str | None
    cells: dict[int, Metric]

    @property
    def is_ceiling(self) -> bool:
        """Knows the gold answer, so it cannot be the best choice."""
        return self.selector in _CEILINGS


class Grid(NamedTuple):
    """The accuracy table."""

    ns: list[int]
    rows: list[Row]
    """Rows without a scorer first, ceilings last of them, then by selector, then by scorer, in order of appearance."""

    def is_best(self, row: Row, n: int) -> bool:
        """Highest at N among rows that do not know the gold answer, where not all of them are equal."""
        values = [other.cells[n].value for other in self.rows if n in other.cells and not other.is_ceiling]
        return not row.is_ceiling and n in row.cells and row.cells[n].value == max(values) > min(values)

    @property
    def problems(self) -> str:
        """How many problems the accuracies are averages over: `200 problems`, or the range where they differ."""
        counts = sorted({cell.count for row in self.rows for cell in row.cells.values()})
        return f"{counts[0]:,} problems" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,} problems"


class Pivot(NamedTuple):
    """A table of metrics with names on both sides."""

    columns: list[str]
    rows: dict[str, list[Metric | None]]


def accuracy_grid(metrics: Iterable[Metric]) -> Grid:
    """The accuracies over the whole split, at every N; the oracle's not twice where it is pass@N."""
    shown = [metric for metric in metrics if metric.group is None and _is_at_n(metric)]
    many = _many_seeds(shown)
    rows: dict[tuple[str, str | None], dict[int, Metric]] = {}
    for metric in shown:
        assert metric.n is not None
        selector = PASS if metric.metric == PASS else metric.selector or metric.metric
        rows.setdefault((selector, _scorer(metric, many)), {})[metric.n] = metric
    if _values(rows.get((_ORACLE, None))) == _values(rows.get((PASS, None))):
        rows.pop((_ORACLE, None), None)
    selectors = list(dict.fromkeys(selector for selector, _ in rows))
    ordered = sorted(rows, key=lambda key: (key[1] is not None, key[0] in _CEILINGS, selectors.index(key[0])))
    return Grid(sorted({n for cells in rows.values() for n in cells}), [Row(*key, rows[key]) for key in ordered])


def differences(metrics: Iterable[Metric]) -> Pivot:
    """The paired differences of accuracies: what is compared, by N."""
    return _by_n([metric for metric in metrics if metric.group is None and is_difference(metric) and metric.n])


def other_differences(metrics: Iterable[Metric]) -> Pivot:
    """The paired differences of everything else: who is compared, by metric."""
    return _by_metric([m for m in metrics if m.group is None and is_difference(m) and not m.n])


def breakdowns(metrics: Iterable[Metric]) -> Pivot:
    """The figures for parts of the split, e.g. one subject: the part and what is measured, by N."""
    return _by_n([metric for metric in metrics if metric.group is not None])


def others(metrics: Iterable[Metric]) -> Pivot:
    """Whatever else there is, by scorer and by metric."""
    return _by_metric([m for m in metrics if m.group is None and not is_difference(m) and m.n is None])


def ties(metrics: Iterable[Metric]) -> Pivot:
    """How often a choice shared the first place: scorer and selector, by N; without those that never did."""
    shown = [metric for metric in metrics if metric.group is None and metric.metric == TIED]
    tied = {(metric.scorer, metric.selector) for metric in shown if metric.value > 0}
    return _by_n([metric for metric in shown if (metric.scorer, metric.selector) in tied])


def vote_weights(metrics: Iterable[Metric]) -> str:
    """How scores became the weights of votes: `sigmoid`, or by scorer where they differ; empty without such votes."""
    found = {metric.scorer: metric.weighting for metric in metrics if metric.weighting is not None}
    if len({*found.values()}) < 2:
        return next((str(name) for name in found.values()), "")
    return ", ".join(f"{name} of {scorer}" for scorer, name in found.items())


def others_at_n(metrics: Iterable[Metric]) -> Pivot:
    """What else was measured of a choice among N, as the share of tokens that it took: scorer and metric, by N."""
    return _by_n([
        metric for metric in metrics
        if metric.group is None and metric.n and metric.metric != TIED and not is_difference(metric)
        and not _is_at_n(metric)
    ])  # fmt: skip


def _by_metric(shown: Sequence[Metric]) -> Pivot:
    """The longer side goes down the page."""
    many = _many_seeds(shown)
    found = {(_scorer(metric, many) or "value", metric_label(metric)): metric for metric in shown}
    scorers, names = (list(dict.fromkeys(key[side] for key in found)) for side in (0, 1))
    if len(names) >= len(scorers):
        return Pivot(scorers, {name: [found.get((scorer, name)) for scorer in scorers] for name in names})
    return Pivot(names, {scorer: [found.get((scorer, name)) for name in names] for scorer in scorers})


def _by_n(shown: Sequence[Metric]) -> Pivot:
    many = _many_seeds(shown)
    rows: dict[str, dict[int | None, Metric]] = {}
    for metric in shown:
        rows.setdefault(_row_name(metric, many), {})[metric.n] = metric
    ns = sorted({n for cells in rows.values() for n in cells}, key=lambda n: (n is not None, n or 0))
    columns = ["value" if n is None else f"N = {n}" for n in ns]
    return Pivot(columns, {name: [cells.get(n) for n in ns] for name, cells in rows.items()})


def _row_name(metric: Metric, many_seeds: bool) -> str:
    """Part, measure unless it is accuracy at N, scorer and selector."""
    if metric.metric in (ACCURACY, TIED) or (is_difference(metric) and metric.n):
        measured = selector_label(metric.selector) if metric.selector else None
    else:
        measured = metric_label(metric)
    return ": ".join(part for part in (metric.group, _scorer(metric, many_seeds), measured) if part)


def _values(cells: Mapping[int, Metric] | None) -> dict[int, float]:
    return {n: metric.value for n, metric in (cells or {}).items()}


def _is_at_n(metric: Metric) -> bool:
    return metric.metric in (ACCURACY, PASS) and metric.n is not None


def _many_seeds(metrics: Sequence[Metric]) -> bool:
    return len({metric.seed for metric in metrics} - {None}) > 1


def _scorer(metric: Metric, many_seeds: bool) -> str | None:
    seed = f"seed {metric.seed}" if many_seeds and metric.seed is not None else None
    return ", ".join(part for part in (metric.scorer, seed) if part) or None
