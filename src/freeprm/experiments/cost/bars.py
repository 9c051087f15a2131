"""Stacked horizontal bars as inline SVG: what each method costs, by what it is paid for."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from freeprm.report import svg
from freeprm.report.svg import Scale, element

WIDTH = 620
_RIGHT, _TOP, _ROW, _AXIS = 110, 8, 30, 44
_LETTER, _LONGEST = 6.3, 260  # of names: the width of a letter, and the most that they get


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
        title: what is plotted.
        bars: from the top; at least one with a length.
        x_label: under the axis.
        names: of all parts there may be, in the order of their colours.
    """
    left = min(_LONGEST, 16 + _LETTER * max(len(bar.name) for bar in bars))
    longest = max(sum(length for _, length in bar.parts) for bar in bars)
    ticks = svg.ticks(0, longest, count=5)
    bottom = _TOP + _ROW * len(bars)
    x = Scale(0, ticks[-1], left, WIDTH - _RIGHT)
    used = {name for bar in bars for name, _ in bar.parts}
    lines = [svg.line([(x(tick), _TOP), (x(tick), bottom)], class_="rule" if tick else "zero") for tick in ticks]
    step = ticks[1] - ticks[0]
    marks = [svg.label(svg.tick_text(tick, step), x=x(tick), y=bottom + 16, class_="tick") for tick in ticks]
    rows = [_row(bar, _TOP + _ROW * place, x, names) for place, bar in enumerate(bars)]
    axis = svg.label(x_label, x=(left + WIDTH - _RIGHT) / 2, y=bottom + 36, class_="axis")
    picture = element(
        "svg", element("title", escape(title)), *lines, *marks, *rows, axis,
        viewBox=f"0 0 {WIDTH} {bottom + _AXIS}", role="img", class_="plot",
    )  # fmt: skip
    return element("figure", element("figcaption", escape(title)), picture) + _legend(names, used)


def _row(bar: Bar, top: float, x: Scale, names: Sequence[str]) -> str:
    middle = top + _ROW / 2
    drawn = [svg.label(bar.name, x=x.start - 8, y=middle + 4, class_="tick", anchor="end")]
    start = 0.0
    for name, length in bar.parts:
        left, right = x(start), x(start + length)
        tip = element("title", escape(f"{bar.name}, {name}: {length:.4g}"))
        class_ = f"mark {_colour(names, name)}"
        drawn.append(element("rect", tip, x=left, y=top + 5, width=right - left, height=_ROW - 10, class_=class_))
        start += length
    return "".join([*drawn, svg.label(bar.text, x=x(start) + 6, y=middle + 4, class_="tick", anchor="start")])


def _legend(names: Sequence[str], used: Collection[str]) -> str:
    keys = []
    for name in (name for name in names if name in used):
        swatch = element("rect", x=0, y=2, width=12, height=10, class_=f"mark {_colour(names, name)}")
        key = element("svg", swatch, viewBox="0 0 14 14", width=14, height=14, aria_hidden="true")
        keys.append(element("li", key, escape(name)))
    return element("ul", *keys, class_="legend")


def _colour(names: Sequence[str], name: str) -> str:
    return f"s{names.index(name) % 8}"
