"""Metrics for readers: names and numbers as texts, and tables for the page and the terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freeprm.core.curation import Operation
from freeprm.core.groups import Size
from freeprm.report.table import NONE, Cell, Cells, Mark, Table, texts
from freeprm.types import Cost, Metric

ACCURACY = "accuracy"
PASS = "pass_at_k"
TIED = "tied"
_ORACLE = "oracle"
_CEILINGS = (_ORACLE, PASS)
_UNSCORED = "without a scorer"
_DIFFERENCE = "_difference"
_FAMILIES = {
    "best_of_n": "best-of-N",
    "majority": "majority vote",
    "oracle": "oracle",
    "random": "random choice",
    "random_distinct_text": "random distinct text",
    "pass_at_k": "pass@N, any right",
}
_AGGREGATORS = {"score": "by its one score", "last": "last step"}
_WORDS = {"f1": "F1", "auc": "AUC", "kl": "KL", "ece": "ECE", "processbench": "ProcessBench"}
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def selector_label(selector: str) -> str:
    """`best_of_n/min` -> `best-of-N, min over steps`; `best_of_n/min - majority` -> `... − majority vote`."""
    first, minus, second = selector.partition(" - ")
    if minus:
        return f"{selector_label(first)} − {selector_label(second)}"
    family, _, aggregator = selector.partition("/")
    text = _FAMILIES.get(family, family.replace("_", " "))
    return f"{text}, {_AGGREGATORS.get(aggregator, f'{aggregator} over steps')}" if aggregator else text


def metric_label(metric: Metric) -> str:
    """`processbench_f1` at `threshold=dev` -> `ProcessBench F1, % (threshold=dev)`."""
    text = " ".join(_WORDS.get(word, word) for word in metric.metric.removesuffix(_DIFFERENCE).split("_"))
    unit = "" if not is_share(metric) else ", points" if is_difference(metric) else ", %"
    decided = f" ({metric.selector})" if metric.selector else ""
    return text[:1].upper() + text[1:] + unit + decided


def value_text(metric: Metric) -> str:
    """The value alone: a share in percent, a difference in points with its sign, or the plain number."""
    return _number(metric, metric.value)


def interval_text(metric: Metric) -> str:
    """`[57.2, 64.8]`, in the unit of `value_text`; empty without an interval."""
    if metric.low is None or metric.high is None:
        return ""
    return f"[{_number(metric, metric.low)}, {_number(metric, metric.high)}]"


def half_width_text(metric: Metric) -> str:
    """`±3.8`: half the width of the interval; empty without one."""
    if metric.low is None or metric.high is None:
        return ""
    return "±" + _number(metric, (metric.high - metric.low) / 2).lstrip("+")


def metric_cell(metric: Metric | None, *, best: bool = False) -> Cell:
    """A value with its interval; differences whose interval excludes zero are marked."""
    if metric is None:
        return Cell(NONE)
    bounds = (metric.low, metric.high) if is_difference(metric) else (None, None)
    gains, loses = bounds[0] is not None and bounds[0] > 0, bounds[1] is not None and bounds[1] < 0
    mark: Mark = "best" if best else "gain" if gains else "loss" if loses else ""
    return Cell(value_text(metric), interval_text(metric), half_width_text(metric), mark)


def is_difference(metric: Metric) -> bool:
    """Whether it is a paired difference."""
    return metric.metric.endswith(_DIFFERENCE)


def is_share(metric: Metric) -> bool:
    """Whether it is shown in percent: accuracies, F1 and the like, but not AUC, thresholds or losses."""
    name = metric.metric.removesuffix(_DIFFERENCE)
    return name.startswith(("accuracy", PASS)) or name == TIED or name.endswith(("accuracy", "f1"))


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, `+` included, and a real minus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")  # + 0.0: no negative zero


def quantity(value: float) -> str:
    """A large number with its SI prefix: `1.24 T`."""
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:,.0f}"


def _number(metric: Metric, value: float) -> str:
    if is_difference(metric):
        return signed(100 * value) if is_share(metric) else signed(value, 3)
    if is_share(metric):
        return f"{100 * value:.1f}"
    plain = f"{value:.3f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:.4g}"
    return plain.replace("-", "−")


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """A line of the accuracy table: one selector and scorer, at every N."""

    selector: str
    scorer: str | None
    cells: Mapping[int, Metric]

    @property
    def is_ceiling(self) -> bool:
        """Whether it knows the gold answer, and so cannot be marked as best."""
        return self.selector in _CEILINGS


class Grid(NamedTuple):
    """The accuracies over the whole split, at every N."""

    ns: list[int]
    rows: list[AccuracyRow]
    """Rows without a scorer first, ceilings last of them, then by selector, then by scorer, in order of appearance."""

    def is_best(self, row: AccuracyRow, n: int) -> bool:
        """Whether it is the highest at N among rows that do not know the gold answer, unless all are equal."""
        values = [other.cells[n].value for other in self.rows if n in other.cells and not other.is_ceiling]
        return not row.is_ceiling and n in row.cells and row.cells[n].value == max(values) > min(values)

    @property
    def problems(self) -> str:
        """The number of problems of the accuracies: `200 problems`, or a range."""
        counts = sorted({cell.count for row in self.rows for cell in row.cells.values()})
        return f"{counts[0]:,} problems" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,} problems"


def accuracy_grid(metrics: Iterable[Metric]) -> Grid:
    """The accuracies over the whole split, at every N; without the oracle if it equals pass@N."""
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
    return Grid(
        sorted({n for cells in rows.values() for n in cells}), [AccuracyRow(*key, rows[key]) for key in ordered]
    )


def metric_tables(metrics: Sequence[Metric]) -> dict[str, Table]:
    """Tables of all metrics, by name, without empty ones.

    The names are `accuracy`, `ties`, `differences`, `measures at N`, `measures`, `other differences`, `breakdown`.
    """
    whole = [metric for metric in metrics if metric.group is None]
    parts = [metric for metric in metrics if metric.group is not None]
    differences = [metric for metric in whole if is_difference(metric)]
    plain = [metric for metric in whole if not is_difference(metric) and not _is_at_n(metric)]
    tied = [metric for metric in plain if metric.metric == TIED]
    ever = {(metric.scorer, metric.selector) for metric in tied if metric.value > 0}
    tied = [metric for metric in tied if (metric.scorer, metric.selector) in ever]
    found = {
        "accuracy": accuracy_table(metrics),
        "ties": _by_n("first place shared, % of problems", "choice", tied, _chosen),
        "differences": _by_n("paired differences in points", "compared", [m for m in differences if m.n], _chosen),
        "measures at N": _by_n("", "measure", [m for m in plain if m.n and m.metric != TIED], _measured),
        "measures": _by_metric("", "measure", [metric for metric in plain if metric.n is None]),
        "other differences": _by_metric("paired differences", "difference", [m for m in differences if not m.n]),
        "breakdown": _by_n("breakdown", "part", parts, _part),
    }
    return {name: table for name, table in found.items() if table.rows}


def accuracy_table(metrics: Sequence[Metric]) -> Table:
    """A row for each scorer under each selector, a column for each N, the best of each column marked."""
    grid = accuracy_grid(metrics)
    rows = [
        (
            selector_label(row.selector) if row.scorer else _UNSCORED,
            row.scorer or selector_label(row.selector),
            [metric_cell(row.cells.get(n), best=grid.is_best(row, n)) for n in grid.ns],
        )
        for row in grid.rows
    ]
    weights = vote_weights(metrics)
    return Table(
        title=f"accuracy in %, {grid.problems}, 95 % intervals" if rows else "",
        header=("chosen by", *(f"N = {n}" for n in grid.ns)),
        rows=_under_headings(rows),
        note=f"Weights of votes: {weights}." if weights else "",
    )


def vote_weights(metrics: Iterable[Metric]) -> str:
    """The weighting of votes: `sigmoid`, or by scorer if they differ; empty without weighted votes."""
    found = {metric.scorer: metric.weighting for metric in metrics if metric.weighting is not None}
    if len({*found.values()}) < 2:
        return next((str(name) for name in found.values()), "")
    return ", ".join(f"{name} of {scorer}" for scorer, name in found.items())


def cost_table(costs: Mapping[str, Cost]) -> Table:
    """The cost of each stage, and the sum."""
    whole = {**costs, "all stages": sum(costs.values(), Cost())}
    return Table(
        header=("stage", "seconds", "FLOPs", "tokens generated", "tokens scored", "tokens trained on"),
        rows=tuple(_cost_row(stage, cost) for stage, cost in whole.items()),
        has_total=True,
    )


def operations_table(operations: Sequence[Operation]) -> Table:
    """Operations on training data, in order: changed sizes as `before → after`, and what was left out."""
    units = ("problems", "responses", "pairs")
    return Table(
        header=("data", *units, "left out"),
        rows=tuple(
            texts(done.name, *(_change(done.before, done.after, unit) for unit in units), _reasons(done))
            for done in operations
        ),
        align="lrrrl",
    )


def _by_metric(title: str, corner: str, shown: Sequence[Metric]) -> Table:
    """By scorer and metric; the longer side goes down the page."""
    many = _many_seeds(shown)
    found = {(_scorer(metric, many) or "value", metric_label(metric)): metric for metric in shown}
    scorers, names = (list(dict.fromkeys(key[side] for key in found)) for side in (0, 1))
    if len(names) >= len(scorers):
        rows = [(Cell(name), *(metric_cell(found.get((who, name))) for who in scorers)) for name in names]
        return Table(title=title, header=(corner, *scorers), rows=tuple(rows))
    rows = [(Cell(who), *(metric_cell(found.get((who, name))) for name in names)) for who in scorers]
    return Table(title=title, header=(corner, *names), rows=tuple(rows))


_RowName = Callable[[Metric, str | None], tuple[str, str]]
"""A metric and its scorer with its seed -> the heading and the name of its row."""


def _by_n(title: str, corner: str, shown: Sequence[Metric], row_name: _RowName) -> Table:
    many = _many_seeds(shown)
    found: dict[tuple[str, str], dict[int | None, Metric]] = {}
    for metric in shown:
        found.setdefault(row_name(metric, _scorer(metric, many)), {})[metric.n] = metric
    ns = sorted({n for cells in found.values() for n in cells}, key=lambda n: (n is not None, n or 0))
    rows = [(heading, name, [metric_cell(cells.get(n)) for n in ns]) for (heading, name), cells in found.items()]
    return Table(
        title=title,
        header=(corner, *("value" if n is None else f"N = {n}" for n in ns)),
        rows=_under_headings(rows),
    )


def _chosen(metric: Metric, scorer: str | None) -> tuple[str, str]:
    how = selector_label(metric.selector) if metric.selector else metric_label(metric)
    return (how, scorer) if scorer else (_UNSCORED, how)


def _measured(metric: Metric, scorer: str | None) -> tuple[str, str]:
    return metric_label(metric), scorer or "value"


def _part(metric: Metric, scorer: str | None) -> tuple[str, str]:
    by_choice = metric.selector and (metric.metric in (ACCURACY, TIED) or (is_difference(metric) and metric.n))
    what = selector_label(metric.selector or "") if by_choice else metric_label(metric)
    tied = ", first place shared" if metric.metric == TIED else ""
    return f"{scorer}: {what}{tied}" if scorer else f"{what}{tied}", str(metric.group)


def _under_headings(rows: Iterable[tuple[str, str, Sequence[Cell]]]) -> tuple[Cells, ...]:
    """Rows of (heading, name, cells), grouped below their headings."""
    found: dict[str, list[Cells]] = {}
    for heading, name, cells in rows:
        found.setdefault(heading, []).append((Cell(name), *cells))
    return tuple(row for heading, below in found.items() for row in ((Cell(heading),), *below))


def _cost_row(stage: str, cost: Cost) -> Cells:
    flops = "unknown" if cost.flops is None else quantity(cost.flops) if cost.flops else NONE
    tokens = (cost.generated_tokens, cost.scored_tokens, cost.trained_tokens)
    return texts(stage, f"{cost.seconds:,.1f}", flops, *(f"{n:,}" if n else NONE for n in tokens))


def _change(before: Size, after: Size, unit: str) -> str:
    was, now = getattr(before, unit), getattr(after, unit)
    return f"{now:,}" if was == now else f"{was:,} → {now:,}"


def _reasons(done: Operation) -> str:
    reasons = [f"{count:,} {reason}" for reason, count in done.left_out.items()]
    return "\n".join([*reasons, *(f"noted: {count:,} {what}" for what, count in done.noted.items())])


def _values(cells: Mapping[int, Metric] | None) -> dict[int, float]:
    return {n: metric.value for n, metric in (cells or {}).items()}


def _is_at_n(metric: Metric) -> bool:
    return metric.metric in (ACCURACY, PASS) and metric.n is not None


def _many_seeds(metrics: Sequence[Metric]) -> bool:
    return len({metric.seed for metric in metrics} - {None}) > 1


def _scorer(metric: Metric, many_seeds: bool) -> str | None:
    seed = f"seed {metric.seed}" if many_seeds and metric.seed is not None else None
    return ", ".join(part for part in (metric.scorer, seed) if part) or None
