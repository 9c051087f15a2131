"""What a benchmark gives: a `Row` for each comparison; and rows as tables and as a plot.

A benchmark is a function of this folder that runs our way and a peer's side by side in one process, checks first that
both give the same numbers, and yields rows. It prints and writes nothing: that is the command's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log10
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.timing import Rate
from freeprm.errors import FreePRMError

COLUMNS = ("name", "ours", "peer", "unit", "ratio", "target", "met")
_MET = {True: "yes", False: "no", None: ""}
_READING = """A ratio says how many times better ours is: more tokens in the same time, or less memory or time for the
same work. `target` is the least ratio aimed at. Figures are medians of rounds in which both sides took turns."""
_SIDES = {"ours": ("this package", "#1f5fa8"), "peer": ("the released scorer's way", "#b04a2f")}


class BenchmarkError(FreePRMError):
    """Two ways that are to be compared give different numbers, or a figure could not be taken."""


def check_agreement(what: str, difference: float, *, most: float) -> None:
    """Raises BenchmarkError where ours and a peer's numbers differ by more, or by NaN."""
    if not difference <= most:
        raise BenchmarkError(
            f"{what} differs by {difference:.2e} between ours and a peer's; expected at most {most}. Their speed "
            "cannot be compared before they agree"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison."""

    name: str
    """`subject/peer: conditions`, e.g. `scoring/released scorer: 50M, V=128k, N=64, prompt 150, float32`."""
    ours: float | None = None
    """Our figure, in `unit`; None where it was not measured, and `missing` says why."""
    peer: float | None = None
    """The figure compared with, in `unit`: the peer's, a limit, or what is required."""
    ratio: float | None = None
    """How many times better ours is: ours / peer where more is better, peer / ours where less is (memory, seconds)."""
    target: float | None = None
    """The least ratio that is aimed at; None for a comparison without a target."""
    unit: str
    """`tokens/s`, `MiB`, ..."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else was measured: spread, MFU, peak memory, sizes, hardware. Values that JSON holds."""
    missing: str | None = None
    """Why a figure is None."""

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches its target; None where there is no target or no ratio."""
        return None if self.target is None or self.ratio is None else self.ratio >= self.target


def faster(
    name: str, *, ours: Rate, peer: Rate, details: Mapping[str, Any], target: float | None = None,
    unit: str = "tokens/s",
) -> Row:  # fmt: skip
    """The row of two ways that were run in turns: medians over the rounds, and the spread of both."""
    return Row(
        name=name, ours=ours.median, peer=peer.median, ratio=ours.median / peer.median, target=target, unit=unit,
        details={"rounds": len(ours.seconds), "ours_spread": ours.spread, "peer_spread": peer.spread, **details},
    )  # fmt: skip


def required(name: str, *, ours: Rate, least: float, details: Mapping[str, Any], unit: str = "tokens/s") -> Row:
    """The row of a rate that has to reach a given one."""
    return Row(
        name=name, ours=ours.median, peer=least, ratio=ours.median / least, target=1.0, unit=unit,
        details={"rounds": len(ours.seconds), "ours_spread": ours.spread, **details},
    )  # fmt: skip


def cheaper(
    name: str, *, ours: float, peer: float, unit: str, details: Mapping[str, Any], target: float | None = None
) -> Row:
    """The row of two figures of which the smaller is better."""
    return Row(name=name, ours=ours, peer=peer, ratio=peer / ours, target=target, unit=unit, details=details)


def terminal_table(rows: Sequence[Row]) -> Table:
    """One table of all rows; a row without a figure says why."""
    table = Table(*COLUMNS, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, _cells(row)), style=None if row.met is not False else "yellow")
    return table


def markdown(rows: Sequence[Row]) -> str:
    """A page: what the figures were taken on and with which command, then a table for each subject."""
    runs = sorted({(str(row.details.get("hardware")), str(row.details.get("command"))) for row in rows})
    parts = ["# Benchmarks", *(f"Taken on {hardware}, with `{command}`." for hardware, command in runs), _READING]
    for subject in dict.fromkeys(_subject(row) for row in rows):
        lines = ["| " + " | ".join(_cells(row)) + " |" for row in rows if _subject(row) == subject]
        head = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * 2 + " --- |" + " ---: |" * 2 + " --- |"]
        parts += [f"## {subject.capitalize()}", "\n".join([*head, *lines])]
    return "\n\n".join(parts) + "\n"


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


def growth_plot(rows: Sequence[Row], file: Path) -> bool:
    """Draw seconds over what was varied, both logarithmic, a panel an axis, of the rows that have an `axis`.

    Args:
        rows: of any benchmarks.
        file: .svg or .png.

    Returns:
        Whether there was anything to draw.
    """
    measured = [row for row in rows if "axis" in row.details and row.ours is not None]
    axes = list(dict.fromkeys(str(row.details["axis"]) for row in measured))
    if not axes:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(axes), 3.2), layout="constrained")
    for place, axis in enumerate(axes, start=1):
        panel = figure.add_subplot(1, len(axes), place)
        points = [row for row in measured if row.details["axis"] == axis]
        points.sort(key=lambda row: float(row.details["x"]))
        xs = [row.details["x"] for row in points]
        for side, (label, colour) in _SIDES.items():
            ys = [float(getattr(row, side)) for row in points]
            panel.plot(xs, ys, marker="o", color=colour, label=label)
        panel.set(xscale="log", yscale="log", title=axis, xlabel=points[0].details["meaning"], xticks=xs)
        panel.set_xticklabels([f"{x:,}" for x in xs])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if place == 1:
            panel.set_ylabel("seconds")
            panel.legend(frameon=False)
    figure.savefig(file)
    return True
