"""The tables of a comparison: Table 1 by two ways of choosing, differences, steps, and what each method costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freeprm.core.ledger import ALL_IN, AS_PUBLISHED, DEVELOPMENT, TRAINING, USE, Ledger, Total, under
from freeprm.experiments.bills import bill
from freeprm.experiments.comparison.measures import BASELINES, NULL, Measured, Place
from freeprm.experiments.comparison.runs import Folders, test_split
from freeprm.experiments.comparison.settings import Comparison
from freeprm.io.manifest import read_cost
from freeprm.io.runs import read_manifest
from freeprm.report.wording import interval_text, value_text
from freeprm.types import Cost, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCost:
    """The bill of one method. A figure is None where it is not known, or where there is nothing of the kind."""

    all_in: float | None
    """FLOPs of development: rollouts, step labels, the reference and training, those of earlier stages included."""
    published: float | None
    """The same as the paper charges it; see `freeprm.core.ledger`."""
    labels: float | None
    """FLOPs of making step labels, as far as they are in `all_in`."""
    seconds: float | None
    """Of development."""
    drawn_tokens: float | None
    """Tokens generated for it."""
    trained_tokens: float | None
    """Tokens passed forward and backward."""
    scoring_flops: float | None
    """FLOPs a scored response, over all generators."""
    scoring_seconds: float | None
    """Seconds a scored response."""


def method_costs(comparison: Comparison, folders: Folders) -> dict[str, MethodCost]:
    """The bill of each method, from the manifests of its scores and of all that those were made from."""
    return {name: _cost(comparison, folders, name) for name in comparison.methods}


def total_cost(folders: Folders) -> Cost:
    """Everything that the comparison did."""
    manifests = [read_manifest(path.parent) or {} for path in sorted(folders.out.glob("*/**/manifest.json"))]
    return sum((read_cost(manifest["cost"]) for manifest in manifests if "cost" in manifest), Cost())


def _cost(comparison: Comparison, folders: Folders, name: str) -> MethodCost:
    scored = [folders.scores(name, test_split(generator)) for generator in comparison.generators]
    responses = sum((read_manifest(folder) or {})["counts"]["scored"] for folder in scored)
    book = bill(scored).ledger
    scoring = book.only(USE).by("stage")["score"].total()
    flops = _known_flops(scoring)
    known = comparison.methods[name].scorer is None  # what somebody else's model has cost is not
    return MethodCost(
        **(_development(book) if known else dict.fromkeys(_DEVELOPMENT)),
        scoring_flops=None if flops is None else flops / responses,
        scoring_seconds=scoring.seconds / responses,
    )


_DEVELOPMENT = ("all_in", "published", "labels", "seconds", "drawn_tokens", "trained_tokens")


def _development(book: Ledger) -> Mapping[str, float | None]:
    made = book.only(DEVELOPMENT)
    annotation = made.only(charged=["annotation"])
    return {
        "all_in": _known_flops(under(ALL_IN, book).total()),
        "published": _known_flops(under(AS_PUBLISHED, book).total()),
        "labels": _known_flops(annotation.total()) if annotation.entries else None,
        "seconds": made.total().seconds,
        "drawn_tokens": _tokens(made, "decode"),
        "trained_tokens": _tokens(made, TRAINING),
    }


def _tokens(book: Ledger, what: str) -> int:
    return book.by("what").get(what, Ledger()).total().tokens


def _known_flops(total: Total) -> float | None:
    return None if total.n_unknown else float(total.flops)


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
        tie_table(comparison, metrics),
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
    about = _FLOOR_NOTE if family == "best_of_n" else _weights(comparison, found.weightings)
    return TextTable(
        title=title,
        note=f"{count} problems; 95 % intervals over problems; the average is over all columns. {about}"
        f"{_left_out(found.left_out)}",
        header=("reward model", "type", *header, "average"),
        rows=tuple(rows),
    )


def _left_out(left_out: Mapping[Place, int]) -> str:
    counted = ", ".join(f"{place.generator} @{place.n} {count}" for place, count in left_out.items())
    return f" Left out, for want of N responses with scores of every method: {counted}." if counted else ""


_FLOOR_NOTE = """A scorer that knows nothing inside a problem gets what a random distinct text gets, and not what one
response gets: equal texts have equal scores, and right ones repeat more often than wrong ones. Accuracies are
expectations over ties."""


def _weights(comparison: Comparison, weightings: Mapping[str, str]) -> str:
    """`Weights: sigmoid; standardised of ...`, the most frequent first and without names."""
    by_weighting: dict[str, list[str]] = {}
    for name, weighting in weightings.items():
        by_weighting.setdefault(weighting, []).append(comparison.methods[name].title or name)
    if not by_weighting:
        return "Accuracies are expectations over ties."
    first, *others = sorted(by_weighting, key=lambda weighting: -len(by_weighting[weighting]))
    said = "; ".join([first, *(f"{weighting} of {', '.join(by_weighting[weighting])}" for weighting in others)])
    return f"Weights, by what the scores are: {said}. Accuracies are expectations over ties."


_BASELINE_TITLES = {
    "random": "one response, pass@1",
    NULL: "random distinct text",
    "majority": "majority vote",
    "oracle": "any right, pass@N",
}


def _cells(own: Sequence[Metric], places: Sequence[tuple[str | None, int | None]]) -> Iterator[Cell]:
    found = {(metric.group, metric.n): metric for metric in own}
    for place in (*places, (None, None)):
        yield _cell(found.get(place))


def _cell(metric: Metric | None) -> Cell:
    return Cell(NONE) if metric is None else Cell(value_text(metric), interval_text(metric))


def difference_table(comparison: Comparison, metrics: Sequence[Metric]) -> TextTable:
    """Average accuracies less the majority vote's, less best-of-N's null, and less those of the method `against`."""
    shown = {
        (metric.scorer, str(metric.selector).partition("/")[0], str(metric.selector).partition(" - ")[2]): metric
        for metric in metrics
        if metric.metric == "accuracy_difference"
    }
    rival = comparison.against
    columns = [("best_of_n", NULL), ("best_of_n", "majority"), ("weighted_vote", "majority")]
    rows = []
    for name, method in comparison.methods.items():
        cells = [_cell(shown.get((name, *column))) for column in columns]
        if rival is not None:
            cells += [_cell(shown.get((f"{name} - {rival}", family, ""))) for family in _FAMILIES]
        rows.append((Cell(method.title or name), *cells))
    header = [f"{_FAMILIES[family]} less {_BASELINE_TITLES[other]}" for family, other in columns]
    if rival is not None:
        header += [f"{text} less {comparison.methods[rival].title or rival}" for text in _FAMILIES.values()]
    return TextTable(
        title="Paired differences of the averages, points",
        note="The same problems for both; an interval without 0 is a difference that the problems cannot explain. "
        "Best-of-N less random distinct text is what the scores know inside problems.",
        header=("reward model", *header),
        rows=tuple(rows),
        n_names=1,
    )


def tie_table(comparison: Comparison, metrics: Sequence[Metric]) -> TextTable:
    """How often best-of-N, in each column, and the vote, on average, share the first place."""
    shown = [metric for metric in metrics if metric.metric == "tied"]
    places = [(f"generator={name}", n) for name in comparison.generators for n in comparison.sizes]
    rows = []
    for name, method in comparison.methods.items():
        best, votes = (
            {(m.group, m.n): m for m in shown if m.scorer == name and str(m.selector).startswith(f"{family}/")}
            for family in _FAMILIES
        )
        if best or votes:
            cells = [_cell(best.get(place)) for place in [*places, (None, None)]]
            rows.append((Cell(method.title or name), *cells, _cell(votes.get((None, None)))))
    header = [f"{name} @{n}" for name in comparison.generators for n in comparison.sizes]
    return TextTable(
        title="First place shared, % of problems",
        note="By different texts at best-of-N, by different answers in the vote.",
        header=("reward model", *header, "average", "vote, average"),
        rows=tuple(rows),
        n_names=1,
    )


_FAMILIES = {"best_of_n": "best-of-N", "weighted_vote": "weighted vote"}


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
        {"step_auc": "steps", "response_auc": "responses", "response_auc_within_problems": "inside problems"},
        title="Areas under the ROC curve",
        note="Right steps above first errors; right responses above wrong ones, over all responses, and inside each "
        "problem that has both, on average. Best-of-N chooses inside problems.",
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


def markdown(table: TextTable) -> str:
    """The table under its title, in Markdown."""
    rules = ["---"] * table.n_names + ["---:"] * (len(table.header) - table.n_names)
    lines = [table.header, rules, *([_plain(cell) for cell in row] for row in table.rows)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(part for part in (f"## {table.title}", table.note, text) if part)


def print_tables(console: Console, tables: Sequence[TextTable]) -> None:
    """The tables on a terminal, intervals under their values; a table too wide keeps only those of its last column."""
    for table in tables:
        whole = _drawn(table, from_column=0)
        room = console.options.update(max_width=10_000)
        fits = console.measure(whole, options=room).maximum <= console.width
        console.print(whole if fits else _drawn(table, from_column=len(table.header) - 1))


def _drawn(table: TextTable, *, from_column: int) -> Table:
    """With intervals from a column on."""
    drawn = Table(title=table.title, title_justify="left", title_style="bold", box=None, header_style="bold")
    for index, name in enumerate(table.header):
        drawn.add_column(Text(name), justify="left" if index < table.n_names else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(_stacked(cell, with_aside=index >= from_column) for index, cell in enumerate(row)))
    return drawn


def _plain(cell: Cell) -> str:
    return f"{cell.value} {cell.aside}".strip()


def _stacked(cell: Cell, *, with_aside: bool) -> Text:
    return Text.assemble(cell.value, (f"\n{cell.aside}" if cell.aside and with_aside else "", "dim"))
