"""The table of what was done to training data: what was there, what is left, what was left out and why."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freeprm.core.curation import Operation
from freeprm.core.groups import Size

UNITS = ("problems", "responses", "pairs")


def print_operations(console: Console, operations: Sequence[Operation]) -> None:
    """Print a row an operation, in order; a size that it changed as `before → after`."""
    if not operations:
        return
    table = Table("data", box=None, header_style="bold")
    for unit in UNITS:
        table.add_column(unit, justify="right")
    table.add_column("left out")
    for done in operations:
        sizes = [Text(_change(done.before, done.after, unit)) for unit in UNITS]
        table.add_row(Text(done.name), *sizes, Text(_reasons(done.left_out, done.noted)))
    console.print(table)


def _change(before: Size, after: Size, unit: str) -> str:
    was, now = getattr(before, unit), getattr(after, unit)
    return f"{now:,}" if was == now else f"{was:,} → {now:,}"


def _reasons(left_out: Mapping[str, int], noted: Mapping[str, int]) -> str:
    reasons = [f"{count:,} {reason}" for reason, count in left_out.items()]
    return "\n".join([*reasons, *(f"noted: {count:,} {what}" for what, count in noted.items())])
