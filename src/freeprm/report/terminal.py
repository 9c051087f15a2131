"""The tables of metrics for the terminal: accuracy by scorer and selector at every N, then everything else."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freeprm.report.arrange import (
    Grid,
    Pivot,
    accuracy_grid,
    breakdowns,
    differences,
    other_differences,
    others,
    others_at_n,
    ties,
    vote_weights,
)
from freeprm.report.wording import interval_text, selector_label, value_text
from freeprm.types import Metric


def print_metrics(console: Console, metrics: Sequence[Metric]) -> None:
    """Print metrics as tables: shares in percent with their 95 % intervals, differences in points.

    Accuracies at some N are one table (rows scorer x selector, columns N, the best of a column bold);
    paired differences, breakdowns and everything else have one each. Where a table is wider than the
    console, intervals go under their values.
    """
    grid = accuracy_grid(metrics)
    if grid.rows:
        _print(console, lambda stacked: _accuracy(grid, stacked))
    if weights := vote_weights(metrics):
        console.print(Text(f"weights of votes: {weights}", style="dim"))
    _print_pivot(console, ties(metrics), title="first place shared, % of problems")
    _print_pivot(console, differences(metrics), title="paired differences in points")
    _print_pivot(console, others_at_n(metrics), title="")
    _print_pivot(console, others(metrics), title="")
    _print_pivot(console, other_differences(metrics), title="paired differences")
    _print_pivot(console, breakdowns(metrics), title="breakdown")


def _print_pivot(console: Console, pivot: Pivot, *, title: str) -> None:
    if pivot.rows:
        _print(console, lambda stacked: _pivot(title, pivot, stacked))


def _print(console: Console, table: Callable[[bool], Table]) -> None:
    wide = table(False)
    fits = console.measure(wide, options=console.options.update(max_width=10_000)).maximum <= console.width
    console.print(wide if fits else table(True))


def _accuracy(grid: Grid, stacked: bool) -> Table:
    table = _table(
        f"accuracy in %, {grid.problems}, 95 % intervals", ["scorer", "chosen by"], [f"N = {n}" for n in grid.ns]
    )
    for row in grid.rows:
        cells = [_cell(row.cells.get(n), stacked, bold=grid.is_best(row, n)) for n in grid.ns]
        table.add_row(Text(row.scorer or "–"), Text(selector_label(row.selector)), *cells)
    return table


def _pivot(title: str, pivot: Pivot, stacked: bool) -> Table:
    table = _table(title, [""], pivot.columns)
    for name, cells in pivot.rows.items():
        table.add_row(Text(name), *[_cell(metric, stacked) for metric in cells])
    return table


def _table(title: str, names: Sequence[str], values: Sequence[str]) -> Table:
    table = Table(*names, title=title or None, title_justify="left", title_style="bold", box=None, header_style="bold")
    for name in values:
        table.add_column(Text(name), justify="right")
    return table


def _cell(metric: Metric | None, stacked: bool, *, bold: bool = False) -> Text:
    """`61.0 [57.2, 64.8]`, the interval dimmed."""
    if metric is None:
        return Text("–")
    interval = interval_text(metric)
    value = (value_text(metric), "bold" if bold else "")
    return (
        Text.assemble(value, (f"{chr(10) if stacked else ' '}{interval}", "dim")) if interval else Text.assemble(value)
    )
