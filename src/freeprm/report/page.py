"""The page of a run: one self-contained HTML text without scripts or external files; `page.html` is its template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from freeprm.errors import DataError
from freeprm.report.metrics import (
    ACCURACY,
    AccuracyRow,
    Grid,
    accuracy_grid,
    interval_text,
    metric_tables,
    selector_label,
    signed,
    value_text,
)
from freeprm.report.plots import BANDED_LINES, Point, Series, extent, legend, line_plot
from freeprm.report.solutions import LEVELS, Solutions, SolutionView, shade
from freeprm.report.svg import MARKERS
from freeprm.report.table import Table, texts
from freeprm.types import Metric

_BASELINES = 3
_BLIND = ("random", "random_distinct_text")
_ACCURACY_NOTE = (
    "95 % intervals under each value. The best value of each column is marked, rows that know the gold answer aside. "
    "At N = 1 every row is the accuracy of a single response (pass@1). "
    f"Plots of more than {BANDED_LINES} lines leave the intervals to the table."
)
_NULL_NOTE = (
    "Random distinct text is what a scorer gets that knows nothing inside a problem: equal texts have equal scores, so "
    "it chooses among different texts, and right ones repeat more often than wrong ones."
)
_TIES_NOTE = (
    "How often a choice shared the first place with another text, or a vote with another answer, in % of the problems. "
    "Accuracies are expectations over these ties; what is never tied is not in the table."
)
_DIFFERENCE_NOTE = (
    "In points, with 95 % intervals, paired over the same problems so that what both share cancels; "
    "positive where the first is better, and set off in colour and weight where the interval lies off zero."
)
_MEASURES_NOTE = "Where the truth of each step is used, it was used here only: no training label told it."
_OTHER_DIFFERENCE_NOTE = " Paired differences are on the same responses."


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a training plot."""

    panel: str
    """Its plot, e.g. `mean reward`; curves of one panel share axes."""
    name: str
    """Of the line, e.g. `right responses`."""
    points: tuple[tuple[float, float], ...]
    """(optimiser step, value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The claim of the run, fixed before the test split was used: a PRM and a selector that beat baselines."""

    scorer: str
    selector: str
    n: int
    differences: Mapping[str, Metric]
    """Name of a baseline (`majority vote`) -> the paired `accuracy_difference` over it."""
    accuracy: Metric | None = None
    """Of the PRM itself."""

    @property
    def unbeaten(self) -> dict[str, Metric]:
        """Baselines whose difference is not clearly above zero; one without an interval counts as not beaten."""
        return {name: row for name, row in self.differences.items() if row.low is None or row.low <= 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page under a heading; left out if empty."""

    title: str
    note: str = ""
    tables: tuple[Table, ...] = ()
    """Shown without their titles."""
    figures: tuple[str, ...] = ()
    """Markup from `plots`, which escapes texts; shown side by side."""
    legend: str = ""
    """Markup, for all figures."""
    solutions: tuple[SolutionView, ...] = ()
    lines: tuple[str, ...] = ()
    """A list of texts."""
    short: str = ""
    """Its name in the list of sections; the title by default."""
    folded: str = ""
    """If set, the tables are folded away under this line."""

    def __bool__(self) -> bool:
        return bool(self.tables or self.figures or self.solutions or self.lines)

    @property
    def anchor(self) -> str:
        """Its id in the page."""
        return self.title.lower().replace(" ", "-")

    @property
    def shared(self) -> Solutions:
        """The solutions, with what they share."""
        return Solutions(self.solutions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The content of the page."""

    title: str
    command: str
    """The command of this run."""
    disclosure: str = ""
    """What a reader must know about the figures, e.g. that the world is artificial."""
    claim: Claim | None = None
    sections: tuple[Section, ...] = ()


def render(page: Page) -> str:
    """The HTML of the page, with texts escaped. Equal pages give equal bytes."""
    sections = [section for section in page.sections if section]
    return TEMPLATES.get_template("page.html").render(page=page, sections=sections) + "\n"


def style_sheet() -> str:
    """The CSS of pages and figures."""
    return files("freeprm.report").joinpath("report.css").read_text(encoding="utf-8")


def metric_sections(metrics: Sequence[Metric]) -> list[Section]:
    """The sections of all metrics, with plots of the accuracies."""
    tables = metric_tables(metrics)
    grid = accuracy_grid(metrics)
    floor = f" {_NULL_NOTE}" if any(row.selector == "random_distinct_text" for row in grid.rows) else ""
    measures = [tables[name] for name in ("measures", "measures at N", "other differences") if name in tables]
    parts = tables["breakdown"].rows if "breakdown" in tables else ()
    n_parts = sum(len(row) > 1 for row in parts)

    def shown(name: str) -> tuple[Table, ...]:
        return (tables[name],) if name in tables else ()

    figures, names = accuracy_figures(grid)
    about = f"Accuracy in %, over {grid.problems}. {_ACCURACY_NOTE}{floor}" if grid.rows else ""
    return [
        Section(title="Accuracy", note=about, tables=shown("accuracy"), figures=figures, legend=names),
        Section(title="Ties", note=_TIES_NOTE, tables=shown("ties")),
        Section(title="Paired differences", note=_DIFFERENCE_NOTE, tables=shown("differences")),
        Section(
            title="Step level and other measures",
            note=_MEASURES_NOTE + (_OTHER_DIFFERENCE_NOTE if "other differences" in tables else ""),
            tables=tuple(measures),
        ),
        Section(
            title="Breakdown", tables=shown("breakdown"), folded=f"{n_parts} rows: every figure over parts of the split"
        ),
    ]


def settings_table(settings: Mapping[str, str]) -> Table:
    """Settings by name."""
    return Table(header=("", ""), align="ll", rows=tuple(texts(*item) for item in settings.items()))


def claim_over(metrics: Sequence[Metric], *, scorer: str, selector: str, n: int, baseline: str) -> Claim:
    """The claim that a scorer beats majority vote, and the baseline scorer with the same selector, at N.

    Args:
        metrics: with `accuracy_difference` rows of selection: `ce` by `best_of_n/min - majority`, and `ce - reference`
            (or reversed) by `best_of_n/min`.
        scorer, selector, n: of the claim.
        baseline: the scorer to beat, e.g. the untrained reference.

    Raises:
        DataError: there is no such difference.
    """
    at_n = [row for row in metrics if row.n == n and row.group is None]
    rows = {(row.scorer, row.selector): row for row in at_n if row.metric == "accuracy_difference"}
    over_majority = rows.get((scorer, f"{selector} - majority"))
    over_baseline = rows.get((f"{scorer} - {baseline}", selector))
    turned = rows.get((f"{baseline} - {scorer}", selector))
    if over_baseline is None and turned is not None:
        over_baseline = _negated(turned)
    if over_majority is None or over_baseline is None:
        missing = "majority" if over_majority is None else baseline
        raise DataError(
            f"no paired difference of {scorer} over {missing} by {selector} at N = {n}; select with both, at that N"
        )
    label = f"{baseline}, {selector_label(selector)}"
    wanted = (ACCURACY, scorer, selector)
    return Claim(
        scorer=scorer,
        selector=selector,
        n=n,
        differences={"majority vote": over_majority, label: over_baseline},
        accuracy=next((row for row in at_n if (row.metric, row.scorer, row.selector) == wanted), None),
    )


def accuracy_figures(grid: Grid) -> tuple[tuple[str, ...], str]:
    """One plot for each selector, with its scorers and the baselines without a scorer, and their legend.

    There are none for fewer than two N. Rows that know the gold answer are in the table only, since they would
    compress the others.
    """
    if len(grid.ns) < 2:
        return (), ""
    rows = [row for row in grid.rows if not row.is_ceiling]
    scorers = list(dict.fromkeys(row.scorer for row in rows if row.scorer))
    baselines = [_baseline(row, index) for index, row in enumerate(row for row in rows if not row.scorer)]
    panels: dict[str, list[Series]] = {}
    for row in rows:
        if row.scorer:
            line = Series.numbered(scorers.index(row.scorer), row.scorer, _points(row))
            panels.setdefault(selector_label(row.selector), [*baselines]).append(line)
    panels = panels or {"accuracy without a scorer": baselines}
    lows, highs = zip(*map(extent, panels.values()), strict=True)  # one scale, to compare the plots
    plots = tuple(
        line_plot(
            _title(name), lines, x_label="N, responses to choose from", y_label="accuracy, %", log_x=True,
            x_ticks=grid.ns, y_range=(min(lows), max(highs)),
        )
        for name, lines in panels.items()
    )  # fmt: skip
    return plots, legend([series for lines in panels.values() for series in lines])


def training_figures(curves: Sequence[Curve]) -> tuple[str, ...]:
    """One plot for each panel; a name has the same colour in all of them."""
    names = list(dict.fromkeys(curve.name for curve in curves))
    panels: dict[str, list[Series]] = {}
    for curve in curves:
        if curve.points:
            points = [Point(x=x, y=y, tip=f"{curve.name}, step {x:g}: {y:.4g}") for x, y in curve.points]
            panels.setdefault(curve.panel, []).append(Series.numbered(names.index(curve.name), curve.name, points))
    return tuple(
        line_plot(_title(panel), lines, x_label="optimiser step", y_label="")
        + (legend(lines) if len(lines) > 1 else "")
        for panel, lines in panels.items()
    )


def _negated(row: Metric) -> Metric:
    low, high = (None if bound is None else -bound for bound in (row.high, row.low))
    return replace(row, value=-row.value, low=low, high=high)


def _baseline(row: AccuracyRow, index: int) -> Series:
    return Series(
        name=selector_label(row.selector),
        colour=f"base{index % _BASELINES}",
        marker=MARKERS[-1 - index % len(MARKERS)],
        points=_points(row),
        quiet=row.selector in _BLIND,
    )


def _points(row: AccuracyRow) -> tuple[Point, ...]:
    name = row.scorer or selector_label(row.selector)
    return tuple(
        Point.of_share(n, cell, tip=f"{name}, N = {n}: {value_text(cell)} {interval_text(cell)} %")
        for n, cell in sorted(row.cells.items())
    )


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


TEMPLATES = Environment(
    loader=PackageLoader("freeprm", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.globals.update(
    levels=LEVELS, shade=shade, signed=signed, style_sheet=style_sheet, value_text=value_text,
    interval_text=interval_text, selector_label=selector_label,
)  # fmt: skip
