"""Tables of texts in Markdown and in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freeprm.experiments.comparison.tables import Cell, TextTable


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
