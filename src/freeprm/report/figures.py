"""Which figures of a run go into which plot: accuracy against N, and the training curves."""

from collections.abc import Iterable, Sequence

from freeprm.report.arrange import Grid, Row
from freeprm.report.content import Curve
from freeprm.report.plots import Point, Series, extent, legend, line_plot
from freeprm.report.svg import MARKERS, element
from freeprm.report.wording import interval_text, selector_label, value_text

_COLOURS = 8
_BASELINES = 3
_BLIND = ("random", "random_distinct_text")


def accuracy_figures(grid: Grid) -> str:
    """One plot for each way to choose, with its scorers and what needs no scorer; empty without at least two N.

    Rows that know the gold answer stay in the table only: they would squeeze the rest.
    """
    if len(grid.ns) < 2:
        return ""
    rows = [row for row in grid.rows if not row.is_ceiling]
    scorers = list(dict.fromkeys(row.scorer for row in rows if row.scorer))
    baselines = [_baseline(row, index) for index, row in enumerate(row for row in rows if not row.scorer)]
    panels: dict[str, list[Series]] = {}
    for row in rows:
        if row.scorer:
            panels.setdefault(row.selector, []).append(_scored(row, scorers.index(row.scorer)))
    if not panels:
        return _figures({"accuracy without a scorer": baselines}, grid.ns)
    return _figures({selector_label(name): [*baselines, *lines] for name, lines in panels.items()}, grid.ns)


def training_figures(curves: Sequence[Curve]) -> str:
    """One plot for each panel; a name keeps its colour in all of them."""
    names = list(dict.fromkeys(curve.name for curve in curves))
    panels: dict[str, list[Series]] = {}
    for curve in curves:
        if curve.points:
            points = tuple(Point(x=x, y=y, tip=f"{curve.name}, step {x:g}: {y:.4g}") for x, y in curve.points)
            panels.setdefault(curve.panel, []).append(_series(curve.name, names.index(curve.name), points))
    plots = [
        line_plot(_title(panel), lines, x_label="optimiser step", y_label="")
        + (legend(lines) if len(lines) > 1 else "")
        for panel, lines in panels.items()
    ]
    return element("div", *[element("div", plot) for plot in plots], class_="plots") if plots else ""


def _figures(panels: dict[str, list[Series]], ns: Sequence[int]) -> str:
    lows, highs = zip(*[extent(lines) for lines in panels.values()], strict=True)  # one scale, to compare the plots
    plots = [
        line_plot(
            _title(name),
            lines,
            x_label="N, responses to choose from",
            y_label="accuracy, %",
            log_x=True,
            x_ticks=ns,
            y_range=(min(lows), max(highs)),
        )
        for name, lines in panels.items()
    ]
    return element("div", *plots, class_="plots") + legend([series for lines in panels.values() for series in lines])


def _scored(row: Row, index: int) -> Series:
    assert row.scorer is not None
    return _series(row.scorer, index, _points(row))


def _baseline(row: Row, index: int) -> Series:
    colour, marker = f"base{index % _BASELINES}", MARKERS[-1 - index % len(MARKERS)]
    return Series(
        name=selector_label(row.selector),
        colour=colour,
        marker=marker,
        points=_points(row),
        quiet=row.selector in _BLIND,
    )


def _series(name: str, index: int, points: Iterable[Point]) -> Series:
    return Series(name=name, colour=f"s{index % _COLOURS}", marker=MARKERS[index % len(MARKERS)], points=tuple(points))


def _points(row: Row) -> tuple[Point, ...]:
    return tuple(
        Point(
            x=n,
            y=100 * cell.value,
            low=None if cell.low is None else 100 * cell.low,
            high=None if cell.high is None else 100 * cell.high,
            tip=f"{row.scorer or selector_label(row.selector)}, N = {n}: {value_text(cell)} {interval_text(cell)} %",
        )
        for n, cell in sorted(row.cells.items())
    )


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]
