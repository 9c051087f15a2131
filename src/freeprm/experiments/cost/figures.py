"""The paper's two figures on cost, of methods measured here: development FLOPs (3), and what accuracy they buy (1)."""

from collections.abc import Sequence
from importlib.resources import files

from freeprm.core.cost_conventions import Convention
from freeprm.core.ledger import GROUPS
from freeprm.experiments.cost.bars import Bar, bar_plot
from freeprm.experiments.cost.methods import Method, base_of, ratio
from freeprm.experiments.cost.tables import flops_text
from freeprm.report.plots import Point, Series, legend, line_plot
from freeprm.report.svg import MARKERS, element

_UNITS = ((1e18, "EFLOPs"), (1e15, "PFLOPs"), (1e12, "TFLOPs"), (1e9, "GFLOPs"), (1e6, "MFLOPs"), (1.0, "FLOPs"))
_COLOURS = 8


def development_bars(methods: Sequence[Method], convention: Convention, *, against: str) -> str:
    """Figure 3: a bar a method, in parts by group; empty where nothing was developed, or nothing of it is known."""
    totals = [method.development(convention).total() for method in methods]
    if not any(total.flops for total in totals):
        return ""
    size, unit = _unit(max(total.flops for total in totals))
    bars = []
    for method, total in zip(methods, totals, strict=True):
        by_group = method.development(convention).by("group")
        parts = [(name, by_group[name].total().flops / size) for name in GROUPS if name in by_group]
        base = base_of(method, methods, label=against)
        times = ratio(total, base.development(convention).total())
        text = flops_text(total) + ("" if times is None or method is base else f", x {times:.3g}")
        bars.append(Bar(name=_name(method), parts=tuple(part for part in parts if part[1]), text=text))
    return bar_plot(f"Development FLOPs, {convention.name}", bars, x_label=unit, names=GROUPS)


def accuracy_plot(methods: Sequence[Method], convention: Convention) -> str:
    """Figure 1: accuracy against development FLOPs, a line through the points of one label; empty without points."""
    measured = [(method, method.development(convention).total()) for method in methods]
    known = [(method, total) for method, total in measured if method.accuracy and total.flops and not total.n_unknown]
    if not known:
        return ""
    size, unit = _unit(max(total.flops for _, total in known))
    labels = list(dict.fromkeys(method.label for method, _ in known))
    series = [
        Series(
            name=label,
            colour=f"s{place % _COLOURS}",
            marker=MARKERS[place % len(MARKERS)],
            points=tuple(
                sorted(
                    (_point(method, total.flops / size, unit) for method, total in known if method.label == label),
                    key=lambda point: point.x,
                )
            ),
        )
        for place, label in enumerate(labels)
    ]
    ns = {method.accuracy.n for method, _ in known if method.accuracy}
    title = f"Accuracy of best-of-{'/'.join(map(str, sorted(n or 1 for n in ns)))} against development FLOPs"
    xs = [point.x for line in series for point in line.points]
    log = max(xs) > 4 * min(xs)
    plot = line_plot(
        title, series, x_label=f"{unit}, {convention.name}", y_label="accuracy, %", log_x=log,
        x_ticks=_ticks(min(xs), max(xs)) if log else (),
    )  # fmt: skip
    return plot + legend(series)


def standalone(figure: str) -> str:
    """The picture of a figure as an SVG file of its own, with the page's colours."""
    start = figure.index("<svg")
    picture = figure[start : figure.index("</svg>", start) + len("</svg>")]
    css = files("freeprm.report").joinpath("report.css").read_text(encoding="utf-8")
    head, _, rest = picture.partition(">")
    text = "text { font-family: system-ui, sans-serif; }"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{element("style", css, text)}{rest}\n'


def _point(method: Method, x: float, unit: str) -> Point:
    metric = method.accuracy
    assert metric is not None
    return Point(
        x=x,
        y=100 * metric.value,
        low=None if metric.low is None else 100 * metric.low,
        high=None if metric.high is None else 100 * metric.high,
        tip=f"{_name(method)}: {100 * metric.value:.1f} % of {metric.count} problems at {x:.3g} {unit}",
    )


def _name(method: Method) -> str:
    responses = method.bill.responses
    return method.label if responses is None else f"{method.label}, {responses:g} a problem"


def _unit(flops: float) -> tuple[float, str]:
    return next((size, unit) for size, unit in _UNITS if flops >= size)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within a range."""
    round_numbers = (factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5))
    return [number for number in round_numbers if low <= number <= high] or [low, high]
