"""The tables of a comparison as texts: Table 1's shape by two ways of choosing, differences, steps, and cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freeprm.apps.comparison.costs import MethodCost
from freeprm.apps.comparison.measures import BASELINES, Measured, Place
from freeprm.apps.comparison.settings import Comparison
from freeprm.apps.report.wording import interval_text, value_text
from freeprm.types import Metric

NONE = "–"


class Cell(NamedTuple):
    """A value, and what stands small beside it."""

    value: str
    aside: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table that only has to be drawn."""

    title: str
    note: str = ""
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_names: int = 2
    """The first columns are names, the others numbers."""


def all_tables(comparison: Comparison, found: Measured, costs: Mapping[str, MethodCost]) -> list[TextTable]:
    """The tables in their order; those that have nothing to show are left out."""
    metrics = found.metrics
    tables = [
        accuracy_table(comparison, found, "best_of_n", title="Best-of-N accuracy, %"),
        accuracy_table(comparison, found, "weighted_vote", title="Weighted vote accuracy, %"),
        difference_table(comparison, metrics),
        *step_tables(comparison, metrics),
        *cost_tables(comparison, costs),
    ]
    return [table for table in tables if table.rows]


def accuracy_table(comparison: Comparison, found: Measured, family: str, *, title: str) -> TextTable:
    """A row a method, a column each generator and N, and the average; baselines without scores first."""
    shown = [metric for metric in found.metrics if metric.metric == "accuracy"]
    places = [(f"generator={name}", n) for name in comparison.generators for n in comparison.sizes]
    rows = []
    for name in BASELINES:
        own = [metric for metric in shown if metric.scorer is None and metric.selector == name]
        rows.append((Cell(_BASELINE_TITLES[name]), Cell(""), *_cells(own, places)))
    for name, method in comparison.methods.items():
        own = [m for m in shown if m.scorer == name and m.selector is not None and m.selector.startswith(f"{family}/")]
        rows.append((Cell(method.title or name), Cell(method.kind), *_cells(own, places)))
    header = [f"{name} @{n}" for name in comparison.generators for n in comparison.sizes]
    count = max((metric.count for metric in shown), default=0)
    return TextTable(
        title=title,
        note=f"{count} problems; 95 % intervals over problems; the average is over all columns."
        f"{_left_out(found.left_out)}",
        header=("reward model", "type", *header, "average"),
        rows=tuple(rows),
    )


def _left_out(left_out: Mapping[Place, int]) -> str:
    counted = ", ".join(f"{place.generator} @{place.n} {count}" for place, count in left_out.items())
    return f" Left out, for want of N responses with scores of every method: {counted}." if counted else ""


_BASELINE_TITLES = {"random": "one response, pass@1", "majority": "majority vote", "oracle": "any right, pass@N"}


def _cells(own: Sequence[Metric], places: Sequence[tuple[str | None, int | None]]) -> Iterator[Cell]:
    found = {(metric.group, metric.n): metric for metric in own}
    for place in (*places, (None, None)):
        yield _cell(found.get(place))


def _cell(metric: Metric | None) -> Cell:
    return Cell(NONE) if metric is None else Cell(value_text(metric), interval_text(metric))


def difference_table(comparison: Comparison, metrics: Sequence[Metric]) -> TextTable:
    """Average accuracies less the majority vote's, and less those of the method that others are compared with."""
    shown = [metric for metric in metrics if metric.metric == "accuracy_difference"]
    against = comparison.against
    families = {"best_of_n": "best-of-N", "weighted_vote": "weighted vote"}
    rows = []
    for name, method in comparison.methods.items():
        cells = []
        for family in families:
            own = [m for m in shown if m.selector is not None and m.selector.startswith(f"{family}/")]
            cells.append(_cell(next((m for m in own if m.scorer == name), None)))
            if against is not None:
                cells.append(_cell(next((m for m in own if m.scorer == f"{name} - {against}"), None)))
        rows.append((Cell(method.title or name), *cells))
    rivals = ["majority vote", *([comparison.methods[against].title or against] if against is not None else [])]
    return TextTable(
        title="Paired differences of the averages, points",
        note="The same problems for both; an interval without 0 is a difference that the problems cannot explain.",
        header=("reward model", *(f"{family} less {rival}" for family in families.values() for rival in rivals)),
        rows=tuple(rows),
        n_names=1,
    )


def step_tables(comparison: Comparison, metrics: Sequence[Metric]) -> Iterator[TextTable]:
    """How well step scores find the first error, and how well they rank steps and responses, by generator."""
    yield _step_table(
        comparison,
        metrics,
        {"processbench_f1": "F1, %", "first_error_accuracy": "found, %"},
        title="First errors",
        note="F1 as ProcessBench defines it, each method's threshold fitted on dev, which the starting model drew. "
        "Found: the first error has the lowest score of its response.",
    )
    yield _step_table(
        comparison,
        metrics,
        {"step_auc": "steps", "response_auc": "responses"},
        title="Areas under the ROC curve",
        note="Right steps above first errors; right responses above wrong ones.",
    )


def _step_table(
    comparison: Comparison, metrics: Sequence[Metric], columns: Mapping[str, str], *, title: str, note: str
) -> TextTable:
    found = {(m.scorer, m.metric, m.group): m for m in metrics if m.metric in columns}
    rows = []
    for name, method in comparison.methods.items():
        places = [(name, metric, f"generator={who}") for metric in columns for who in comparison.generators]
        if any(place in found for place in places):
            rows.append((Cell(method.title or name), *(_cell(found.get(place)) for place in places)))
    header = [f"{text}, {who}" for text in columns.values() for who in comparison.generators]
    return TextTable(title=title, note=note, header=("reward model", *header), rows=tuple(rows), n_names=1)


def cost_tables(comparison: Comparison, costs: Mapping[str, MethodCost]) -> Iterator[TextTable]:
    """What it takes to have each reward model in FLOPs, and in work; and to score a response with it."""
    base = costs.get(comparison.against or "")
    whole, published = (base.all_in, base.published) if base is not None else (None, None)
    titles = {name: Cell(comparison.methods[name].title or name) for name in costs}
    yield TextTable(
        title="Cost of development, FLOPs",
        note=_COST_NOTE,
        header=("reward model", "all in", "ratio", "of that step labels", "as published", "ratio as published"),
        rows=tuple(
            (
                titles[name],
                _number(bill.all_in, _flops),
                _number(_ratio(bill.all_in, whole), "{:.2f}".format),
                _number(bill.labels, _flops),
                _number(bill.published, _flops),
                _number(_ratio(bill.published, published), "{:.2f}".format),
            )
            for name, bill in costs.items()
        ),
        n_names=1,
    )
    yield TextTable(
        title="Work of development, and cost of a scored response",
        note=_WORK_NOTE,
        header=("reward model", "seconds", "tokens drawn", "tokens trained on", "FLOPs a response", "ms a response"),
        rows=tuple(
            (
                titles[name],
                _number(bill.seconds, "{:.0f}".format),
                _number(bill.drawn_tokens, "{:,.0f}".format),
                _number(bill.trained_tokens, "{:,.0f}".format),
                _number(bill.scoring_flops, _flops),
                _number(bill.scoring_seconds, lambda seconds: f"{1000 * seconds:.2f}"),
            )
            for name, bill in costs.items()
        ),
        n_names=1,
    )


_COST_NOTE = """All in: everything from the first rollout to the end of training, step labels and earlier stages too.
As published: what the paper's ratios tell of, which is step labels, and training by the sequence with every pair of a
right and a wrong response, but neither rollouts nor the reference nor attention; see `freeprm cost`. Ratios are to the
method that others are compared with. Beginnings that responses share are completed once and read once."""
_WORK_NOTE = """Methods that are made side by side take longer, each by itself. The reference costs nothing where it
drew the response itself, and a response that occurs twice is scored once."""


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _number(value: float | None, text: Callable[[float], str]) -> Cell:
    return Cell(NONE) if value is None else Cell(text(value))


def _flops(value: float) -> str:
    return f"{value:.3g}"
