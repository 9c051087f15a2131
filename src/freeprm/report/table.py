"""A table of texts, drawn on a terminal and in Markdown; `page.html` draws it in HTML.

If a terminal is too narrow, intervals are replaced by half their widths, which a line below the table says; then the
table is drawn in parts, one below the other, each with the names and some of the columns of numbers.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

NONE = "–"
Mark = Literal["", "best", "gain", "loss"]
_GAP = "  "
_EQUALS = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"  # `N = 4` stays on one line
_HEADERS = (80, 16, 10, 1)
"""Letters of a header on one line, for wide to narrow layouts."""
_HALVED = "±: half the width of the 95 % interval. A wider terminal shows both ends."
_STYLES: Mapping[Mark, str] = {"": "", "best": "bold", "gain": "green", "loss": "red"}


class Cell(NamedTuple):
    """A value, and details beside it."""

    value: str
    aside: str = ""
    """Its interval, `[57.2, 64.8]`."""
    short: str = ""
    """A shorter form of it, `±3.8`."""
    mark: Mark = ""
    """The best of its column, or a difference above or below zero."""


Cells = tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts. A row of one cell is the heading of those below it."""

    title: str = ""
    header: tuple[str, ...]
    rows: tuple[Cells, ...]
    note: str = ""
    align: str = ""
    """A letter a column: l for names and texts, r for numbers; by default the first are names."""
    has_total: bool = False
    """The last row sums up the others."""

    @property
    def alignment(self) -> str:
        """`align`, or its default."""
        return self.align or "l".ljust(len(self.header), "r")

    def is_heading(self, row: Cells) -> bool:
        """Whether a row is the heading of those below it."""
        return len(row) < len(self.header)


def texts(*values: str) -> Cells:
    """A row of values without details."""
    return tuple(map(Cell, values))


def markdown(table: Table) -> str:
    """The table in Markdown, below its title and its note."""
    rules = ["---:" if side == "r" else "---" for side in table.alignment]
    rows = [[f"{cell.value} {cell.aside}".strip() for cell in row] for row in table.rows]
    lines = [table.header, rules, *(row + [""] * (len(rules) - len(row)) for row in rows)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(part for part in (table.title and f"## {table.title}", table.note, text) if part)


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Print tables with their notes, each followed by an empty line."""
    for table in tables:
        parts = _parts(table, console.width)
        for drawn in parts:
            for line in drawn.lines(console.width):
                console.print(line, no_wrap=True, overflow="ignore", crop=False)
            if drawn is not parts[-1]:
                console.print()
        halved = any(cell.short for row in table.rows for cell in row) and not parts[0].layout.whole
        for note in filter(None, (table.note, _HALVED if halved else "")):
            console.print(Text(note, style="dim"))
        console.print()


class _Layout(NamedTuple):
    """The shown part of a table."""

    columns: tuple[int, ...]
    whole: bool
    """Intervals with both ends, or by half their widths."""
    header: int
    """Letters of a header on one line, unless its longest word or the cells below are wider."""


def _parts(table: Table, width: int) -> list["_Drawn"]:
    """The table in its widest layout that fits, whole or divided by columns; with one of numbers it may not fit."""
    every = tuple(range(len(table.header)))
    for whole in (True, False):
        for header in _HEADERS:
            drawn = _Drawn(table, _Layout(every, whole, header))
            if drawn.width <= width:
                return [drawn]
    n_names = len(table.alignment) - len(table.alignment.lstrip("l"))
    names, numbers = every[:n_names], every[n_names:]
    parts: list[_Drawn] = []
    while numbers:
        n = len(numbers)
        while (drawn := _Drawn(table, _Layout((*names, *numbers[:n]), False, _HEADERS[-2]))).width > width and n > 1:
            n -= 1
        parts.append(drawn)
        numbers = numbers[n:]
        table = replace(table, title="")
    return parts or [drawn]


class _Drawn:
    """A table in one layout."""

    def __init__(self, table: Table, layout: _Layout):
        self._table, self.layout = table, layout
        self._indent = _GAP if any(map(table.is_heading, table.rows)) else ""
        body = [row for row in table.rows if not table.is_heading(row)]
        self._widths = []
        self._headers = []
        for index in layout.columns:
            widest = max((cell_len(line) for row in body for line in self._plain(row, index).split("\n")), default=0)
            header = _wrapped(table.header[index], max(widest, layout.header))
            self._headers.append(header)
            self._widths.append(max([widest, *map(cell_len, header)]))

    @property
    def width(self) -> int:
        """Of a line."""
        return len(self._indent) + sum(self._widths) + len(_GAP) * (len(self._widths) - 1)

    def lines(self, width: int) -> Iterator[Text]:
        """The lines; names too long for the width are cut off."""
        widths = [max(self._widths[0] - max(self.width - width, 0), 8), *self._widths[1:]]
        if self._table.title:
            yield Text(self._table.title, style="bold")
        height = max(map(len, self._headers))
        columns = [[""] * (height - len(header)) + header for header in self._headers]
        for names in zip(*columns, strict=True):
            if any(names):
                yield self._line([Text(name, style="bold") for name in names], widths)
        for row in self._table.rows:
            if self._table.is_heading(row):
                yield Text(row[0].value, style="bold dim")
                continue
            cells = [self._cell(row, index).split("\n") for index in self.layout.columns]
            for number in range(max(map(len, cells))):
                yield self._line([cell[number] if number < len(cell) else Text() for cell in cells], widths)

    def _line(self, cells: Sequence[Text], widths: Sequence[int]) -> Text:
        for cell, index, width in zip(cells, self.layout.columns, widths, strict=True):
            cell.truncate(width, overflow="ellipsis")
            cell.align("left" if self._table.alignment[index] == "l" else "right", width)
        line = Text(_GAP).join(cells)
        line.rstrip()
        return Text(self._indent) + line

    def _cell(self, row: Cells, index: int) -> Text:
        cell = row[index]
        aside = cell.aside if self.layout.whole else cell.short
        return Text.assemble((cell.value, _STYLES[cell.mark]), (f" {aside}" if aside else "", "dim"))

    def _plain(self, row: Cells, index: int) -> str:
        return self._cell(row, index).plain


def _wrapped(header: str, width: int) -> list[str]:
    """A header wrapped to the width, or its longest word."""
    kept = header.replace(" = ", _EQUALS)
    longest = max((len(part) for part in kept.replace("-", "- ").split(" ")), default=1)
    return [line.replace(_EQUALS, " = ") for line in textwrap.wrap(kept, max(width, longest))] or [""]
