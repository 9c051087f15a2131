"""How cost grows, drawn: one panel for each quantity that was varied."""

from collections.abc import Sequence
from pathlib import Path

from freeprm.bench.base import Row

_COLOURS = {"ours": "#1f5fa8", "peer": "#b04a2f"}
_LABELS = {"ours": "this package", "peer": "the released scorer's way"}


def growth_plot(rows: Sequence[Row], file: Path) -> bool:
    """Draw the rows that have an `axis`, seconds over what was varied, both logarithmic.

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
        points = sorted(
            (row for row in measured if row.details["axis"] == axis), key=lambda row: float(row.details["x"])
        )
        xs = [row.details["x"] for row in points]
        for side in _LABELS:
            ys = [float(getattr(row, side)) for row in points]
            panel.plot(xs, ys, marker="o", color=_COLOURS[side], label=_LABELS[side])
        panel.set(xscale="log", yscale="log", title=axis, xlabel=points[0].details["meaning"], xticks=xs)
        panel.set_xticklabels([f"{x:,}" for x in xs])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if place == 1:
            panel.set_ylabel("seconds")
            panel.legend(frameon=False)
    figure.savefig(file)
    return True
