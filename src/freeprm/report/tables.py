"""The page's tables: accuracy at every N, paired differences, step level, costs, settings."""

from collections.abc import Mapping, Sequence
from html import escape

from freeprm.report.arrange import Grid, Pivot, Row
from freeprm.report.svg import element
from freeprm.report.wording import interval_text, is_difference, selector_label, value_text
from freeprm.types import Cost, Metric

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def accuracy_table(grid: Grid) -> str:
    """Rows by way to choose, then by scorer; columns N; the best of each column marked."""
    head = _row([_head("chosen by"), *[_head(f"N = {n}") for n in grid.ns]])
    body: list[str] = []
    section = ""
    for row in grid.rows:
        title = selector_label(row.selector) if row.scorer else "without a scorer"
        if title != section:
            section = title
            body.append(
                _row([element("th", escape(title), colspan=len(grid.ns) + 1, scope="rowgroup")], class_="group")
            )
        name = row.scorer or selector_label(row.selector)
        body.append(_row([_head(name, scope="row"), *[_accuracy_cell(grid, row, n) for n in grid.ns]]))
    return _table([head], body)


def metric_table(pivot: Pivot, *, corner: str) -> str:
    """Names on both sides, a value with its interval in each cell; differences clear of zero stand out."""
    head = _row([_head(corner), *[_head(name) for name in pivot.columns]])
    body = [_row([_head(name, scope="row"), *map(_metric_cell, cells)]) for name, cells in pivot.rows.items()]
    return _table([head], body)


def cost_table(costs: Mapping[str, Cost]) -> str:
    """What each stage used, and the sum."""
    titles = ("stage", "seconds", "FLOPs", "tokens generated", "tokens scored", "tokens trained on")
    body = [_cost_row(stage, cost) for stage, cost in costs.items()]
    total = _cost_row("all stages", sum(costs.values(), Cost()), class_="total")
    return _table([_row([_head(title) for title in titles])], [*body, total])


def settings_table(settings: Mapping[str, str]) -> str:
    """Name and value."""
    return _table(
        [], [_row([_head(name, scope="row"), _cell(value, class_="text")]) for name, value in settings.items()]
    )


def quantity(value: float) -> str:
    """A large number with its SI prefix: `1.24 T`."""
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:,.0f}"


def _cost_row(stage: str, cost: Cost, class_: str | None = None) -> str:
    tokens = (cost.generated_tokens, cost.scored_tokens, cost.trained_tokens)
    cells = [
        f"{cost.seconds:,.1f}",
        "unknown" if cost.flops is None else quantity(cost.flops) if cost.flops else "–",
        *[f"{n:,}" if n else "–" for n in tokens],
    ]
    return _row([_head(stage, scope="row"), *[_cell(text, class_="num") for text in cells]], class_=class_)


def _accuracy_cell(grid: Grid, row: Row, n: int) -> str:
    return _metric_cell(row.cells.get(n), best=grid.is_best(row, n))


def _metric_cell(metric: Metric | None, *, best: bool = False) -> str:
    if metric is None:
        return _cell("–", class_="num")
    value = element("b" if best else "span", value_text(metric), class_="best" if best else _sign(metric))
    interval = interval_text(metric)
    return element("td", value, *([element("small", interval)] if interval else []), class_="num")


def _sign(metric: Metric) -> str | None:
    if not is_difference(metric) or metric.low is None or metric.high is None:
        return None
    return "gain" if metric.low > 0 else "loss" if metric.high < 0 else None


def _table(head: Sequence[str], body: Sequence[str]) -> str:
    parts = [element("thead", *head)] if head else []
    return element("div", element("table", *parts, element("tbody", *body)), class_="scroll", tabindex="0")


def _row(cells: Sequence[str], class_: str | None = None) -> str:
    return element("tr", *cells, class_=class_)


def _head(text: str, scope: str = "col") -> str:
    return element("th", escape(text), scope=scope)


def _cell(text: str, class_: str | None = None) -> str:
    return element("td", escape(text) if text else "&#8203;", class_=class_ or None)
