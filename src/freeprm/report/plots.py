"""Line plots with interval bands, and stacked bars, as inline SVG in the colours of the page's style sheet."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from freeprm.errors import NonFiniteError
from freeprm.report import svg
from freeprm.report.svg import Scale, element
from freeprm.types import Metric

WIDTH, HEIGHT = 440, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 14, 42
_MARKED_POINTS = 12
_COLOURS = 8
BARS_WIDTH = 620
_BARS_RIGHT, _BARS_TOP, _BAR, _AXIS = 110, 8, 30, 44
_LETTER, _LONGEST = 6.3, 260  # of names: the width of a letter, and the maximum
BANDED_LINES = 5
"""Plots of more lines have no bands, which would overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a line, possibly with an interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""
    """Shown on hovering."""

    @classmethod
    def of_share(cls, x: float, share: Metric, *, tip: str) -> "Point":
        """A share and its interval, in %."""
        low, high = (None if bound is None else 100 * bound for bound in (share.low, share.high))
        return cls(x=x, y=100 * share.value, low=low, high=high, tip=tip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A named line; a name has the same look in every plot of the page."""

    name: str
    colour: str
    """A class of the style sheet, `s0` to `s7`, or `base0` to `base2` for baselines."""
    marker: str
    """One of `svg.MARKERS`."""
    points: tuple[Point, ...]
    quiet: bool = False
    """Dashed and without a band: a bound or a reference line."""

    @classmethod
    def numbered(cls, index: int, name: str, points: Iterable[Point]) -> "Series":
        """The line with the colour and marker of an index."""
        colour, shape = f"s{index % _COLOURS}", svg.MARKERS[index % len(svg.MARKERS)]
        return cls(name=name, colour=colour, marker=shape, points=tuple(points))


def line_plot(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    x_ticks: Sequence[float] = (),
    y_range: tuple[float, float] | None = None,
) -> str:
    """One plot.

    Args:
        title: shown, and read by a screen reader.
        series: lines with at least one point in all.
        x_label: under the horizontal axis.
        y_label: beside the vertical axis; may be empty.
        log_x: log2 horizontal axis, with `x_ticks`.
        x_ticks: ticks; by default round numbers.
        y_range: range of the vertical axis; by default that of the values and intervals.

    Raises:
        NonFiniteError: a value is NaN or infinite; names the line and the point.
    """
    _check(title, series)
    xs = [point.x for line in series for point in line.points]
    left = 0.0 if not log_x and 0 < min(xs) < 0.1 * max(xs) else min(xs)
    x_at = list(x_ticks) or [tick for tick in svg.ticks(left, max(xs), count=6) if left <= tick <= max(xs)]
    y_at = svg.ticks(*(y_range or extent(series)))
    x = Scale(left, max(xs), _LEFT, WIDTH - _RIGHT, log_x)
    y = Scale(y_at[0], y_at[-1], HEIGHT - _BOTTOM, _TOP)
    bands = [_band(line, x, y) for line in _banded(series)]
    lines = [_line(line, x, y) for line in series]
    picture = element(
        "svg",
        element("title", escape(title)),
        *_axes(x, y, x_at, y_at, labels=(x_label, y_label)),
        *bands,
        *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="plot",
    )
    return element("figure", element("figcaption", escape(title)), picture)


def legend(series: Sequence[Series]) -> str:
    """Names with their colours and markers; each name once."""
    unique = {line.name: line for line in series}.values()
    keys = [element("li", _key(line), escape(line.name)) for line in unique]
    return element("ul", *keys, class_="legend") if keys else ""


def extent(series: Sequence[Series]) -> tuple[float, float]:
    """Lowest and highest of the values and the bands of one plot."""
    values = [point.y for line in series for point in line.points]
    bounds = [bound for line in _banded(series) for point in line.points for bound in (point.low, point.high)]
    values += [bound for bound in bounds if bound is not None]
    return min(values), max(values)


def _banded(series: Sequence[Series]) -> list[Series]:
    lines = [line for line in series if not line.quiet]
    return lines if len(lines) <= BANDED_LINES else []


def _axes(x: Scale, y: Scale, x_at: Sequence[float], y_at: Sequence[float], *, labels: tuple[str, str]) -> list[str]:
    y_step = y_at[1] - y_at[0]
    x_step = x_at[1] - x_at[0] if len(x_at) > 1 else 1.0
    x_text: Callable[[float], str] = (lambda v: f"{v:g}") if x.log else (lambda v: svg.tick_text(v, x_step))
    middle = (y.start + y.stop) / 2
    return [
        *[svg.line([(x.start, y(tick)), (x.stop, y(tick))], class_="zero" if tick == 0 else "rule") for tick in y_at],
        *[svg.label(svg.tick_text(v, y_step), x=x.start - 7, y=y(v) + 4, class_="tick", anchor="end") for v in y_at],
        *[svg.label(x_text(tick), x=x(tick), y=y.start + 17, class_="tick") for tick in x_at],
        svg.label(labels[0], x=(x.start + x.stop) / 2, y=HEIGHT - 6, class_="axis"),
        *([svg.label(labels[1], x=11, y=middle, class_="axis", rotate=True)] if labels[1] else []),
    ]


def _band(series: Series, x: Scale, y: Scale) -> str:
    edges = [(x(p.x), y(p.low), y(p.high)) for p in series.points if p.low is not None and p.high is not None]
    if len(edges) < 2:
        return ""
    return svg.band(
        [(at, low) for at, low, _ in edges], [(at, high) for at, _, high in edges], class_=f"band {series.colour}"
    )


def _line(series: Series, x: Scale, y: Scale) -> str:
    parts = (
        [svg.line([(x(p.x), y(p.y)) for p in series.points], class_=_line_class(series))]
        if len(series.points) > 1
        else []
    )
    if len(series.points) <= _MARKED_POINTS:
        class_ = f"mark {series.colour}"
        parts += [svg.marker(series.marker, x(p.x), y(p.y), class_=class_, title=p.tip) for p in series.points]
    return "".join(parts)


def _key(series: Series) -> str:
    stroke = svg.line([(1, 7), (25, 7)], class_=_line_class(series))
    mark = svg.marker(series.marker, 13, 7, class_=f"mark {series.colour}")
    return element("svg", stroke, mark, viewBox="0 0 26 14", width=26, height=14, aria_hidden="true")


def _line_class(series: Series) -> str:
    return f"line {series.colour}{' quiet' if series.quiet else ''}"


def _check(title: str, series: Sequence[Series]) -> None:
    for line in series:
        for point in line.points:
            if not all(math.isfinite(value) for value in (point.x, point.y, point.low or 0.0, point.high or 0.0)):
                raise NonFiniteError(
                    f"{title}: {line.name}: {point.y} at {point.x:g} (interval {point.low} to {point.high}); "
                    "expected finite values. Look for the first such value in the run's log."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar."""

    name: str
    parts: tuple[tuple[str, float], ...]
    """Lengths by name, from the left."""
    text: str
    """At its end."""


def bar_plot(title: str, bars: Sequence[Bar], *, x_label: str, names: Sequence[str]) -> str:
    """Bars from zero on one linear scale, with a legend of their parts.

    Args:
        title: of the plot.
        bars: from the top; at least one with a length.
        x_label: under the axis.
        names: of all possible parts, in the order of their colours.
    """
    left = min(_LONGEST, 16 + _LETTER * max(len(bar.name) for bar in bars))
    longest = max(sum(length for _, length in bar.parts) for bar in bars)
    ticks = svg.ticks(0, longest, count=5)
    bottom = _BARS_TOP + _BAR * len(bars)
    x = Scale(0, ticks[-1], left, BARS_WIDTH - _BARS_RIGHT)
    used = {name for bar in bars for name, _ in bar.parts}
    lines = [svg.line([(x(tick), _BARS_TOP), (x(tick), bottom)], class_="rule" if tick else "zero") for tick in ticks]
    step = ticks[1] - ticks[0]
    marks = [svg.label(svg.tick_text(tick, step), x=x(tick), y=bottom + 16, class_="tick") for tick in ticks]
    rows = [_bar(bar, _BARS_TOP + _BAR * index, x, names) for index, bar in enumerate(bars)]
    axis = svg.label(x_label, x=(left + BARS_WIDTH - _BARS_RIGHT) / 2, y=bottom + 36, class_="axis")
    picture = element(
        "svg", element("title", escape(title)), *lines, *marks, *rows, axis,
        viewBox=f"0 0 {BARS_WIDTH} {bottom + _AXIS}", role="img", class_="plot",
    )  # fmt: skip
    figure = element("figure", element("figcaption", escape(title)), picture)
    return figure + _bars_legend(names, used)


def _bar(bar: Bar, top: float, x: Scale, names: Sequence[str]) -> str:
    middle = top + _BAR / 2
    drawn = [svg.label(bar.name, x=x.start - 8, y=middle + 4, class_="tick", anchor="end")]
    start = 0.0
    for name, length in bar.parts:
        left, right = x(start), x(start + length)
        tip = element("title", escape(f"{bar.name}, {name}: {length:.4g}"))
        class_ = f"mark {_colour(names, name)}"
        drawn.append(element("rect", tip, x=left, y=top + 5, width=right - left, height=_BAR - 10, class_=class_))
        start += length
    return "".join([*drawn, svg.label(bar.text, x=x(start) + 6, y=middle + 4, class_="tick", anchor="start")])


def _bars_legend(names: Sequence[str], used: Collection[str]) -> str:
    keys = []
    for name in (name for name in names if name in used):
        swatch = element("rect", x=0, y=2, width=12, height=10, class_=f"mark {_colour(names, name)}")
        key = element("svg", swatch, viewBox="0 0 14 14", width=14, height=14, aria_hidden="true")
        keys.append(element("li", key, escape(name)))
    return element("ul", *keys, class_="legend")


def _colour(names: Sequence[str], name: str) -> str:
    return f"s{names.index(name) % _COLOURS}"
