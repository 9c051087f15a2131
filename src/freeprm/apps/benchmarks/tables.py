"""Rows of benchmarks as tables: in a terminal, and in Markdown."""

from collections.abc import Sequence
from math import floor, log10

from rich.table import Table
from rich.text import Text

from freeprm.bench.base import Row

COLUMNS = ("name", "ours", "peer", "unit", "ratio", "target", "met")
_MET = {True: "yes", False: "no", None: ""}


def terminal_table(rows: Sequence[Row]) -> Table:
    """One table of all rows; a row without a figure says why."""
    table = Table(*COLUMNS, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, _cells(row)), style=None if row.met is not False else "yellow")
    return table


def markdown(rows: Sequence[Row]) -> str:
    """A page: what the figures were taken on and with which command, then a table for each subject."""
    runs = sorted({(str(row.details.get("hardware")), str(row.details.get("command"))) for row in rows})
    subjects = list(dict.fromkeys(_subject(row) for row in rows))
    parts = ["# Benchmarks", *(f"Taken on {hardware}, with `{command}`." for hardware, command in runs), _READING]
    for subject in subjects:
        lines = ["| " + " | ".join(_cells(row)) + " |" for row in rows if _subject(row) == subject]
        head = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * 2 + " --- |" + " ---: |" * 2 + " --- |"]
        parts += [f"## {subject.capitalize()}", "\n".join([*head, *lines])]
    return "\n\n".join(parts) + "\n"


_READING = """A ratio says how many times better ours is: more tokens in the same time, or less memory or time for the
same work. `target` is the least ratio aimed at. Figures are medians of rounds in which both sides took turns."""


def number(value: float | None) -> str:
    """Three digits that count, or all of them before the point: `12,345`, `0.0123`; nothing for None."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - floor(log10(abs(value))))}f}"


def _cells(row: Row) -> list[str]:
    ratio = number(row.ratio) if row.missing is None else f"not measured: {row.missing}"
    return [row.name, number(row.ours), number(row.peer), row.unit, ratio, number(row.target), _MET[row.met]]


def _subject(row: Row) -> str:
    return row.name.partition("/")[0]
