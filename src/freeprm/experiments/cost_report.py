"""Comparison of methods' costs: tables, the paper's two figures on cost for methods measured here, and a page."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freeprm.core.ledger import GROUPS, REFERENCE, ChargeGroup, Convention, Ledger, Total
from freeprm.errors import ConfigError
from freeprm.experiments.bills import BestOfN, Billed, base_of, best_of_n, ratio
from freeprm.experiments.paper_costs import published_tables
from freeprm.io.rows import write_text
from freeprm.report.metrics import quantity
from freeprm.report.page import Page, Section, render, style_sheet
from freeprm.report.plots import Bar, Point, Series, bar_plot, legend, line_plot
from freeprm.report.svg import element
from freeprm.report.table import NONE, Cell, Cells, Table, texts

TITLE = "What methods cost"
_USED: tuple[ChargeGroup, ...] = ("generation", "scoring", "reference")
_UNITS = ((1e18, "EFLOPs"), (1e15, "PFLOPs"), (1e12, "TFLOPs"), (1e9, "GFLOPs"), (1e6, "MFLOPs"), (1.0, "FLOPs"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Everything that `freeprm cost` shows."""

    methods: tuple[Billed, ...]
    conventions: tuple[Convention, ...]
    against: str | None
    """Label of the method that others are divided by; None without methods."""
    measured: tuple[BestOfN, ...]
    """Best-of-N, if requested."""
    published: bool

    @property
    def tables(self) -> list[Table]:
        """In the order of reading."""
        made: list[Table] = []
        if self.against is not None:
            made += [development_table(self.methods, way, against=self.against) for way in self.conventions]
            used = use_table(self.methods)
            made += [used] if used else []
        made += [best_of_n_table(self.measured)] if self.measured else []
        return [*made, *(published_tables() if self.published else [])]

    @property
    def figures(self) -> dict[str, str]:
        """By file name: bars and accuracy under each convention, without empty figures."""
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
        """The distinct notes of the bills."""
        return list(dict.fromkeys(note for method in self.methods for note in method.bill.notes))

    def data(self) -> dict[str, Any]:
        """JSON values: the totals of each method, by convention and group, and every entry."""
        return {
            "methods": [self._method(method) for method in self.methods],
            "best_of_n": [
                {"label": item.label, "n": item.n, "seconds": item.seconds, "devices": item.devices}
                for item in self.measured
            ],
            "published": [_plain(table) for table in published_tables()] if self.published else [],
            "notes": self.notes,
        }

    def write(self, out: Path, *, command: str) -> None:
        """`cost.html`, and each figure as an SVG file."""
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in self.figures.items():
            write_text(out / f"{name}.svg", standalone(figure))
        tables = [Section(title=table.title, tables=(table,)) for table in self.tables]
        drawn = Section(title="Figures", figures=tuple(self.figures.values()))
        notes = Section(title="Notes", lines=tuple(self.notes))
        page = Page(title=TITLE, command=command, sections=(drawn, *tables, notes))
        write_text(out / "cost.html", render(page))

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
        conventions: of charging; one table each.
        against: label of the method that others are divided by; by default the first.
        measures_use: include times of best-of-N of each method, which then must have scores.
        published: include the paper's figures.

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


def _plain(table: Table) -> dict[str, Any]:
    rows = [[cell.value for cell in row] for row in table.rows]
    return {"title": table.title, "columns": table.header, "rows": rows, "note": table.note}


def _total(part: Ledger) -> dict[str, Any]:
    total = part.total()
    known = total.n_known or not total.n_unknown
    return {**total._asdict(), "flops": total.flops if known else None}


def flops_text(total: Total) -> str:
    """`1.24 T`; `unknown` if no model's shape is known, `≥ 1.24 T` if some are not."""
    if total.n_unknown and not total.n_known:
        return "unknown"
    if total.n_unknown:
        return f"≥ {quantity(total.flops)}"
    return quantity(total.flops) if total.flops else NONE


def development_table(methods: Sequence[Billed], convention: Convention, *, against: str) -> Table:
    """FLOPs of each method's development by group, their sum, and its ratio to that of `base_of`."""
    parts = [method.development(convention).by("group") for method in methods]
    groups = [name for name in GROUPS if any(name in part and _paid(part[name]) for part in parts)]
    rows = []
    for method, part in zip(methods, parts, strict=True):
        whole = method.development(convention).total()
        times = ratio(whole, base_of(method, methods, label=against).development(convention).total())
        cells = [flops_text(part.get(name, Ledger()).total()) for name in groups]
        rows.append(
            texts(
                method.label,
                NONE if method.bill.responses is None else f"{method.bill.responses:g}",
                *cells,
                flops_text(whole),
                quantity(whole.attention_flops) if whole.attention_flops else NONE,
                NONE if times is None else f"{times:.3g}",
                *_times(whole),
            )
        )
    return Table(
        title=f"Development FLOPs, {convention.name}",
        header=(
            "method", "responses an instruction", *groups, "total", "of which attention", f"x {against}",
            "seconds", "GPU-seconds",
        ),
        rows=tuple(rows),
        note=" ".join(_sentences(convention)),
    )  # fmt: skip


def use_table(methods: Sequence[Billed]) -> Table | None:
    """The cost of using each method, by model; None without folders of use."""
    rows = []
    for method in methods:
        cells = [method.use.only(charged=[group]).total() for group in _USED]
        drawn, scored = cells[0], method.use.only(charged=_USED[1:]).total()
        if drawn.tokens or scored.tokens:
            times = f"{drawn.seconds:,.1f}", *_times(scored)
            rows.append(texts(method.label, *map(flops_text, [*cells, scored]), *times))
    if not rows:
        return None
    return Table(
        title="Use: rollouts to choose from, and their scores",
        header=(
            "method", "generation", "reward model", "reference", "scoring in all", "seconds of generation",
            "seconds of scoring", "GPU-seconds of scoring",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def best_of_n_table(measured: Sequence[BestOfN]) -> Table:
    """Table 3's shape, a column for each method."""
    parts = dict.fromkeys(part for item in measured for part in item.seconds)
    rows: list[Cells] = [(Cell(part), *(_cell(item, part) for item in measured)) for part in parts]
    rows += [
        texts("total", *(f"{item.total:.1f} %" for item in measured)),
        texts("total without the reference, in % of it", *map(_without_reference, measured)),
    ]
    devices = sorted({device for item in measured for device in item.devices})
    return Table(
        title="Best-of-N, measured: time in % of generation, with seconds and FLOPs",
        header=("", *(f"{item.label}, N = {item.n:g}" for item in measured)),
        rows=tuple(rows),
        note=f"On {', '.join(devices) or 'devices that were not recorded'}.",
    )


def _cell(item: BestOfN, part: str) -> Cell:
    if part not in item.seconds:
        return Cell(NONE)
    flops = f", {flops_text(item.ledgers[part].total())}" if part in item.ledgers else ""
    return Cell(f"{item.share(part):.1f} %", f"({item.seconds[part]:,.1f} s{flops})")


def _without_reference(item: BestOfN) -> str:
    if REFERENCE not in item.seconds:
        return NONE
    return f"{100 * (item.total - item.share(REFERENCE)) / item.total:.1f} %"


def _paid(part: Ledger) -> bool:
    total = part.total()
    return bool(total.n_known or total.n_unknown)


def _times(total: Total) -> tuple[str, str]:
    return f"{total.seconds:,.1f}", f"{total.gpu_seconds:,.1f}" if total.gpu_seconds else NONE


def _sentences(convention: Convention) -> Iterator[str]:
    if convention.by_sequence:
        yield "Training is 6 P a token of every sequence in full, a pair being two; annotation is 2 P a token."
        yield "Rollouts and the reference are not charged."
    else:
        yield "2 P a token forward and 4 P backward, of tokens that went through a model."
    if not convention.attention:
        yield "The attention term is left out."


def development_bars(methods: Sequence[Billed], convention: Convention, *, against: str) -> str:
    """Figure 3: a bar for each method, in parts by group; empty without known FLOPs of development."""
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
    """Figure 1: accuracy against development FLOPs, a line for each label; empty without points."""
    measured = [(method, method.development(convention).total()) for method in methods]
    known = [(method, total) for method, total in measured if method.accuracy and total.flops and not total.n_unknown]
    if not known:
        return ""
    size, unit = _unit(max(total.flops for _, total in known))
    labels = list(dict.fromkeys(method.label for method, _ in known))
    points = {
        label: [_point(method, total.flops / size, unit) for method, total in known if method.label == label]
        for label in labels
    }
    series = [
        Series.numbered(index, label, sorted(points[label], key=lambda point: point.x))
        for index, label in enumerate(labels)
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
    """A figure as a standalone SVG file, with the page's colours."""
    start = figure.index("<svg")
    picture = figure[start : figure.index("</svg>", start) + len("</svg>")]
    head, _, rest = picture.partition(">")
    text = "text { font-family: system-ui, sans-serif; }"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{element("style", style_sheet(), text)}{rest}\n'


def _point(method: Billed, x: float, unit: str) -> Point:
    metric = method.accuracy
    assert metric is not None
    tip = f"{_name(method)}: {100 * metric.value:.1f} % of {metric.count} problems at {x:.3g} {unit}"
    return Point.of_share(x, metric, tip=tip)


def _name(method: Billed) -> str:
    responses = method.bill.responses
    return method.label if responses is None else f"{method.label}, {responses:g} a problem"


def _unit(flops: float) -> tuple[float, str]:
    return next((size, unit) for size, unit in _UNITS if flops >= size)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within a range."""
    round_numbers = (factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5))
    return [number for number in round_numbers if low <= number <= high] or [low, high]
