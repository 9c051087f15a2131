"""Tables of cost on a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freeprm.experiments.cost.tables import TextTable


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
