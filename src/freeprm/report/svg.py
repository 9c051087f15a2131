"""Drawing primitives: SVG elements as text, scales from data to the page, and round ticks."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

_MARKER_SIZE = 3.6
MARKERS = ("circle", "square", "triangle", "diamond", "down")
"""Shapes that distinguish series without colour."""


class Scale(NamedTuple):
    """Maps data in [low, high] to [start, stop] on the page, linearly or along log2."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log2(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1.0) * (self.stop - self.start)


def element(tag: str, *children: str, **attributes: str | float | None) -> str:
    """One element. Children are markup; attribute values are escaped, `_` in their names becomes `-`, None is omitted.

    `class_` is written as `class`; numbers have at most two decimals, so that equal data give equal bytes.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def label(text: str, *, x: float, y: float, class_: str, anchor: str = "middle", rotate: bool = False) -> str:
    """A text at a point; rotated ones read upwards."""
    turn = f"rotate(-90 {_number(x)} {_number(y)})" if rotate else None
    return element("text", escape(text), x=x, y=y, class_=class_, text_anchor=anchor, transform=turn)


def line(points: Iterable[tuple[float, float]], *, class_: str) -> str:
    """An open line through points of the page."""
    return element("polyline", points=_points(points), class_=class_, fill="none")


def band(lows: Sequence[tuple[float, float]], highs: Sequence[tuple[float, float]], *, class_: str) -> str:
    """The area between a lower and an upper line."""
    return element("polygon", points=_points([*lows, *reversed(highs)]), class_=class_)


def marker(shape: str, x: float, y: float, *, class_: str, title: str = "") -> str:
    """A small filled shape with a tooltip."""
    inside = [element("title", escape(title))] if title else []
    if shape == "circle":
        return element("circle", *inside, cx=x, cy=y, r=_MARKER_SIZE, class_=class_)
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.25), (1.1, 0.85), (-1.1, 0.85)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "down": [(0, 1.25), (1.1, -0.85), (-1.1, -0.85)],
    }[shape]
    points = _points((x + _MARKER_SIZE * dx, y + _MARKER_SIZE * dy) for dx, dy in corners)
    return element("polygon", *inside, points=points, class_=class_)


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, the first at or below `low`, the last at or above `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * index, 12) for index in range(first, max(last, first + 1) + 1)]


def tick_text(value: float, step: float) -> str:
    """A tick's number with as many decimals as its step needs; large ones in thousands."""
    if abs(step) >= 1000:
        return f"{value / 1000:g}k"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "−")


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}" if abs(value) < 1e5 else f"{value:.0f}"
