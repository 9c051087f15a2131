"""What methods cost, beside each other: tables, figures, and a page of both."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freeprm.core.ledger import GROUPS, REFERENCE, Convention, Group, Ledger, Total
from freeprm.errors import ConfigError
from freeprm.experiments.bills import BestOfN, Billed, base_of, best_of_n, ratio
from freeprm.experiments.paper_costs import published_tables
from freeprm.report.plots import Bar, Point, Series, bar_plot, legend, line_plot
from freeprm.report.svg import MARKERS, element
from freeprm.report.table import TextTable
from freeprm.report.tables import quantity

TITLE = "What methods cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Everything that `freeprm cost` shows."""

    methods: tuple[Billed, ...]
    conventions: tuple[Convention, ...]
    against: str | None
    """Label of the method that others are divided by; None without methods."""
    measured: tuple[BestOfN, ...]
    """Best-of-N, where asked for."""
    published: bool

    @property
    def tables(self) -> list[TextTable]:
        """In the order of reading."""
        made: list[TextTable] = []
        if self.against is not None:
            made += [development_table(self.methods, way, against=self.against) for way in self.conventions]
            used = use_table(self.methods)
            made += [used] if used else []
        made += [best_of_n_table(self.measured)] if self.measured else []
        return [*made, *(published_tables() if self.published else [])]

    @property
    def figures(self) -> dict[str, str]:
        """By name of a file: bars and accuracy under each convention, where there is something to draw."""
        if self.against is None:
            return {}
        drawn = {}
        for way in self.conventions:
            name = way.name.split(":")[0].replace(" ", "-")
            drawn[f"development-{name}"] = development_bars(self.methods, way, against=self.against)
            drawn[f"accuracy-{name}"] = accuracy_plot(self.methods, way)
        return {name: figure for name, figure in drawn.items() if figure}

    @property
    def notes(self) -> list[str]:
        """What is to be known of the bills, each once."""
        return list(dict.fromkeys(note for method in self.methods for note in method.bill.notes))

    def data(self) -> dict[str, Any]:
        """For programs: the totals of each method, by convention and group, and every entry."""
        return {
            "methods": [self._method(method) for method in self.methods],
            "best_of_n": [
                {"label": item.label, "n": item.n, "seconds": item.seconds, "devices": item.devices}
                for item in self.measured
            ],
            "published": [asdict(table) for table in published_tables()] if self.published else [],
            "notes": self.notes,
        }

    def write(self, out: Path, *, command: str) -> None:
        """`cost.html`, and each figure as an SVG file."""
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in self.figures.items():
            (out / f"{name}.svg").write_text(standalone(figure), encoding="utf-8")
        text = page(TITLE, command=command, tables=self.tables, figures=list(self.figures.values()), notes=self.notes)
        (out / "cost.html").write_text(text, encoding="utf-8")

    def _method(self, method: Billed) -> dict[str, Any]:
        assert self.against is not None
        base = base_of(method, self.methods, label=self.against)
        return {
            "label": method.label,
            "responses": method.bill.responses,
            "accuracy": asdict(method.accuracy) if method.accuracy else None,
            "development": {
                way.name: {
                    **_total(method.development(way)),
                    "ratio": ratio(method.development(way).total(), base.development(way).total()),
                    "groups": {name: _total(part) for name, part in method.development(way).by("group").items()},
                }
                for way in self.conventions
            },
            "use": {name: _total(part) for name, part in method.use.by("group").items()},
            "entries": [asdict(entry) for entry in method.bill.ledger.entries],
        }


def cost_report(
    methods: Sequence[Billed], conventions: Sequence[Convention], *, against: str | None = None,
    measures_use: bool = False, published: bool = False,
) -> CostReport:  # fmt: skip
    """Compare methods.

    Args:
        methods: with their bills.
        conventions: what is charged; one table each.
        against: label of the method that others are divided by; the first by default.
        measures_use: also times best-of-N of each method, which must have scores then.
        published: also the paper's figures.

    Raises:
        ConfigError: no such method, or one without scores.
    """
    labels = [method.label for method in methods]
    if against is not None and against not in labels:
        raise ConfigError(f"against: no method {against!r}; there are {', '.join(labels) or 'none'}")
    return CostReport(
        methods=tuple(methods),
        conventions=tuple(conventions),
        against=against if against is not None or not labels else labels[0],
        measured=tuple(best_of_n(method) for method in methods) if measures_use else (),
        published=published,
    )


def _total(part: Ledger) -> dict[str, Any]:
    total = part.total()
    known = total.n_known or not total.n_unknown
    return {**total._asdict(), "flops": total.flops if known else None}


_USED: tuple[Group, ...] = ("generation", "scoring", "reference")


def flops_text(total: Total) -> str:
    """`1.24 T`; `unknown` where the models' shapes are not known, `≥ 1.24 T` where some of them are not."""
    if total.n_unknown and not total.n_known:
        return "unknown"
    if total.n_unknown:
        return f"≥ {quantity(total.flops)}"
    return quantity(total.flops) if total.flops else "–"


def development_table(methods: Sequence[Billed], convention: Convention, *, against: str) -> TextTable:
    """FLOPs of each method's development by group, their sum, and how many times another's that is; see `base_of`."""
    parts = [method.development(convention).by("group") for method in methods]
    groups = [name for name in GROUPS if any(name in part and _paid(part[name]) for part in parts)]
    rows = []
    for method, part in zip(methods, parts, strict=True):
        whole = method.development(convention).total()
        times = ratio(whole, base_of(method, methods, label=against).development(convention).total())
        cells = [flops_text(part.get(name, Ledger()).total()) for name in groups]
        rows.append((
            method.label,
            "–" if method.bill.responses is None else f"{method.bill.responses:g}",
            *cells,
            flops_text(whole),
            quantity(whole.attention_flops) if whole.attention_flops else "–",
            "–" if times is None else f"{times:.3g}",
            *_times(whole),
        ))  # fmt: skip
    return TextTable(
        title=f"Development FLOPs, {convention.name}",
        columns=(
            "method", "responses an instruction", *groups, "total", "of which attention", f"x {against}",
            "seconds", "GPU-seconds",
        ),
        rows=tuple(rows),
        note=_note(convention),
    )  # fmt: skip


def use_table(methods: Sequence[Billed]) -> TextTable | None:
    """What using each method took, by model; None where none of the folders is of its use."""
    rows = []
    for method in methods:
        cells = [method.use.only(charged=[group]).total() for group in _USED]
        drawn, scored = cells[0], method.use.only(charged=_USED[1:]).total()
        if drawn.tokens or scored.tokens:
            times = f"{drawn.seconds:,.1f}", *_times(scored)
            rows.append((method.label, *map(flops_text, [*cells, scored]), *times))
    if not rows:
        return None
    return TextTable(
        title="Use: rollouts to choose from, and their scores",
        columns=(
            "method", "generation", "reward model", "reference", "scoring in all", "seconds of generation",
            "seconds of scoring", "GPU-seconds of scoring",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _paid(part: Ledger) -> bool:
    total = part.total()
    return bool(total.n_known or total.n_unknown)


def _times(total: Total) -> tuple[str, str]:
    return f"{total.seconds:,.1f}", f"{total.gpu_seconds:,.1f}" if total.gpu_seconds else "–"


def _note(convention: Convention) -> str:
    return " ".join(_sentences(convention))


def _sentences(convention: Convention) -> Iterator[str]:
    if convention.by_sequence:
        yield "Training is 6 P a token of every sequence in full, a pair being two; annotation is 2 P a token."
        yield "Rollouts and the reference are not charged."
    else:
        yield "2 P a token forward and 4 P backward, of tokens that went through a model."
    if not convention.attention:
        yield "The attention term is left out."


_UNITS = ((1e18, "EFLOPs"), (1e15, "PFLOPs"), (1e12, "TFLOPs"), (1e9, "GFLOPs"), (1e6, "MFLOPs"), (1.0, "FLOPs"))
_COLOURS = 8


def development_bars(methods: Sequence[Billed], convention: Convention, *, against: str) -> str:
    """Figure 3: a bar a method, in parts by group; empty where nothing was developed, or nothing of it is known."""
    totals = [method.development(convention).total() for method in methods]
    if not any(total.flops for total in totals):
        return ""
    size, unit = _unit(max(total.flops for total in totals))
    bars = []
    for method, total in zip(methods, totals, strict=True):
        by_group = method.development(convention).by("group")
        parts = [(name, by_group[name].total().flops / size) for name in GROUPS if name in by_group]
        base = base_of(method, methods, label=against)
        times = ratio(total, base.development(convention).total())
        text = flops_text(total) + ("" if times is None or method is base else f", x {times:.3g}")
        bars.append(Bar(name=_name(method), parts=tuple(part for part in parts if part[1]), text=text))
    return bar_plot(f"Development FLOPs, {convention.name}", bars, x_label=unit, names=GROUPS)


def accuracy_plot(methods: Sequence[Billed], convention: Convention) -> str:
    """Figure 1: accuracy against development FLOPs, a line through the points of one label; empty without points."""
    measured = [(method, method.development(convention).total()) for method in methods]
    known = [(method, total) for method, total in measured if method.accuracy and total.flops and not total.n_unknown]
    if not known:
        return ""
    size, unit = _unit(max(total.flops for _, total in known))
    labels = list(dict.fromkeys(method.label for method, _ in known))
    series = [
        Series(
            name=label,
            colour=f"s{place % _COLOURS}",
            marker=MARKERS[place % len(MARKERS)],
            points=tuple(
                sorted(
                    (_point(method, total.flops / size, unit) for method, total in known if method.label == label),
                    key=lambda point: point.x,
                )
            ),
        )
        for place, label in enumerate(labels)
    ]
    ns = {method.accuracy.n for method, _ in known if method.accuracy}
    title = f"Accuracy of best-of-{'/'.join(map(str, sorted(n or 1 for n in ns)))} against development FLOPs"
    xs = [point.x for line in series for point in line.points]
    log = max(xs) > 4 * min(xs)
    plot = line_plot(
        title, series, x_label=f"{unit}, {convention.name}", y_label="accuracy, %", log_x=log,
        x_ticks=_ticks(min(xs), max(xs)) if log else (),
    )  # fmt: skip
    return plot + legend(series)


def standalone(figure: str) -> str:
    """The picture of a figure as an SVG file of its own, with the page's colours."""
    start = figure.index("<svg")
    picture = figure[start : figure.index("</svg>", start) + len("</svg>")]
    css = files("freeprm.report").joinpath("report.css").read_text(encoding="utf-8")
    head, _, rest = picture.partition(">")
    text = "text { font-family: system-ui, sans-serif; }"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{element("style", css, text)}{rest}\n'


def _point(method: Billed, x: float, unit: str) -> Point:
    metric = method.accuracy
    assert metric is not None
    return Point(
        x=x,
        y=100 * metric.value,
        low=None if metric.low is None else 100 * metric.low,
        high=None if metric.high is None else 100 * metric.high,
        tip=f"{_name(method)}: {100 * metric.value:.1f} % of {metric.count} problems at {x:.3g} {unit}",
    )


def _name(method: Billed) -> str:
    responses = method.bill.responses
    return method.label if responses is None else f"{method.label}, {responses:g} a problem"


def _unit(flops: float) -> tuple[float, str]:
    return next((size, unit) for size, unit in _UNITS if flops >= size)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within a range."""
    round_numbers = (factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5))
    return [number for number in round_numbers if low <= number <= high] or [low, high]


def page(title: str, *, command: str, tables: Sequence[TextTable], figures: Sequence[str], notes: Sequence[str]) -> str:
    """The whole page; equal contents give equal bytes."""
    css = files("freeprm.report").joinpath("report.css").read_text(encoding="utf-8")
    head = [
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", escape(title)),
        element("style", css),
    ]
    body = [
        element("h1", escape(title)),
        element("pre", element("code", escape(command))),
        *[element("section", figure, id=f"figure-{place}") for place, figure in enumerate(figures)],
        *[
            element("section", element("h2", escape(table.title)), html_table(table), id=f"table-{place}")
            for place, table in enumerate(tables)
        ],
        *([element("section", element("h2", "Notes"), _listed(notes), id="notes")] if notes else []),
    ]
    return (
        "<!DOCTYPE html>\n"
        + element("html", element("head", *head), element("body", element("main", *body)), lang="en")
        + "\n"
    )


def html_table(table: TextTable) -> str:
    """The table with its note."""
    head = element("tr", *[element("th", escape(name), scope="col") for name in table.columns])
    rows = [
        element(
            "tr",
            element("th", escape(first), scope="row"),
            *[element("td", escape(cell), class_="num") for cell in cells],
        )
        for first, *cells in table.rows
    ]
    note = element("p", escape(table.note), class_="note") if table.note else ""
    whole = element("table", element("thead", head), element("tbody", *rows))
    return note + element("div", whole, class_="scroll", tabindex="0")


def _listed(notes: Iterable[str]) -> str:
    return element("ul", *[element("li", escape(note)) for note in notes])


def print_table(console: Console, table: TextTable) -> None:
    """Print a table with its note."""
    shown = Table(title=Text(table.title), title_justify="left", title_style="bold", box=None, header_style="dim")
    for place, name in enumerate(table.columns):
        shown.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    if table.note:
        console.print(Text(table.note, style="dim"))
    console.print()


def best_of_n_table(measured: Sequence[BestOfN]) -> TextTable:
    """Table 3's shape, a column for each method."""
    parts = list(dict.fromkeys(part for item in measured for part in item.seconds))
    rows = [(part, *(_cell(item, part) for item in measured)) for part in parts]
    totals = ("total", *(f"{item.total:.1f} %" for item in measured))
    without = ("total without the reference, in % of it", *map(_without_reference, measured))
    devices = sorted({device for item in measured for device in item.devices})
    return TextTable(
        title="Best-of-N, measured: time in % of generation, with seconds and FLOPs",
        columns=("", *(f"{item.label}, N = {item.n:g}" for item in measured)),
        rows=(*rows, totals, without),
        note=f"On {', '.join(devices) or 'devices that were not recorded'}.",
    )


def _cell(item: BestOfN, part: str) -> str:
    if part not in item.seconds:
        return "–"
    flops = f", {flops_text(item.ledgers[part].total())}" if part in item.ledgers else ""
    return f"{item.share(part):.1f} % ({item.seconds[part]:,.1f} s{flops})"


def _without_reference(item: BestOfN) -> str:
    if REFERENCE not in item.seconds:
        return "–"
    return f"{100 * (item.total - item.share(REFERENCE)) / item.total:.1f} %"
