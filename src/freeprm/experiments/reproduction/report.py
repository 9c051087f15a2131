"""The report of a reproduction: the verdicts, then each claim with its tests, figure and table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from freeprm.core.intervals import percentile_interval
from freeprm.errors import DataError
from freeprm.experiments.comparison.settings import Comparison
from freeprm.experiments.reproduction.claims import VERIFIED, Claim, ClaimTest, PaperTable, Plot, names
from freeprm.experiments.reproduction.measuring import Measure, SeedRuns, bound_of, differing, measure_of
from freeprm.experiments.reproduction.presets import Preset
from freeprm.experiments.reproduction.verdicts import Outcome, Verdict, firm, pooled
from freeprm.io.manifest import versions
from freeprm.io.rows import write_json, write_text
from freeprm.report.metrics import signed
from freeprm.report.page import Page, Section, render, settings_table
from freeprm.report.plots import Bar, Point, Series, bar_plot, legend, line_plot
from freeprm.report.table import NONE, Cell, Cells, Mark, Table, markdown
from freeprm.types import Cost

_MARKS: Mapping[Verdict, Mark] = {"holds": "gain", "fails": "loss", "undecided": "", "not tested": ""}
_SIDES = {
    "random": "one response", "random_distinct_text": "random distinct text", "majority": "majority vote",
    "oracle": "any right", "reference": "the reference",
}  # fmt: skip
_EXPECTED = {"above": "more than", "below": "less than", "not_above": "no more than", "not_below": "no less than"}
RULES = (
    "A test is a number with its 95 % interval: over draws of seeds and, inside each, of problems. “More than b” holds "
    "where the whole interval is above b, and fails where it is below b + the smallest difference that matters (1 "
    "point unless said otherwise); “no less than b” holds where it is above b less that difference, and fails where "
    "it is below b. A claim holds if all its tests do (an intersection-union test, which needs no correction for their "
    "number) and fails if one does. ‡ marks tests that are decided with Holm's correction over all tests of the page, "
    "too. Numbers without an interval, such as ratios of FLOPs, decide by themselves."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim with what its tests came to."""

    claim: Claim
    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    why: str = ""
    """Why not all of its tests could be made: what the preset lacks, or its runs."""

    @property
    def needed(self) -> int | None:
        """Problems that its undecided tests would take, if the values stayed."""
        known = [outcome.needed for outcome in self.outcomes if outcome.needed is not None]
        return max(known, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is reported."""

    preset: Preset
    comparison: Comparison
    """As it was run."""
    command: str
    seeds: Sequence[SeedRuns]
    claims: Sequence[Judged]
    cost: Cost


class _Cross(NamedTuple):
    """A point of a figure, in the units that are shown."""

    method: str
    x: float
    y: float
    low: float | None
    high: float | None


def write_report(report: Report, out: Path) -> None:
    """Write report.md, report.html and claims.json."""
    firmly = _firmly(report.claims)
    write_json(out / "claims.json", {
        "command": report.command, "preset": report.preset.name, "seeds": [runs.seed for runs in report.seeds],
        "claims": [
            {**asdict(judged.claim), "verdict": judged.verdict, "why": judged.why,
             "outcomes": [asdict(outcome) for outcome in judged.outcomes], "runs": _runs(report, judged.claim)}
            for judged in report.claims
        ],
    })  # fmt: skip
    sections = [_verdicts(report.claims), *(_section(report, judged, firmly) for judged in report.claims)]
    about = _about(report)
    page = Page(
        title=f"The paper's claims, re-tested: {report.comparison.title}", command=report.command, disclosure=RULES,
        sections=(*sections, Section(title="Settings", tables=(settings_table(about),))),
    )  # fmt: skip
    write_text(out / "report.html", render(page))
    parts = [f"# {page.title}", f"    {report.command}", RULES, "\n".join(f"- {k}: {v}" for k, v in about.items())]
    for section in sections:
        tables = [markdown(table).replace("## ", "### ") for table in section.tables]
        parts += [f"## {section.title}", *filter(None, [section.note]), *tables, *section.lines]
    write_text(out / "report.md", "\n\n".join(parts) + "\n")


def short_table(claims: Sequence[Judged]) -> Table:
    """A line a claim, for a terminal."""
    rows = tuple(
        (Cell(judged.claim.name), Cell(judged.verdict, mark=_MARKS[judged.verdict]), Cell(judged.claim.title))
        for judged in claims
    )  # fmt: skip
    return Table(header=("", "verdict", "claim"), rows=rows, align="lll")


def verdict_table(claims: Sequence[Judged]) -> Table:
    """A row a claim."""
    rows = []
    for judged in claims:
        needed = f"{judged.needed:,} problems would do" if judged.needed and judged.verdict == "undecided" else ""
        state = Cell(judged.verdict, mark=_MARKS[judged.verdict])
        first = judged.outcomes[0] if len(judged.outcomes) == 1 else None
        ours = _shown(first) if first else Cell(_tally(judged.outcomes))
        rows.append((
            Cell(judged.claim.name), Cell(judged.claim.title), Cell(judged.claim.source), ours, state,
            Cell("; ".join(filter(None, [needed, judged.why]))),
        ))  # fmt: skip
    return Table(header=("", "claim", "in the paper", "here", "verdict", ""), rows=tuple(rows), align="lllrll")


def _verdicts(claims: Sequence[Judged]) -> Section:
    counts = {verdict: sum(judged.verdict == verdict for judged in claims) for verdict in _MARKS}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return Section(title="Verdicts", note=f"{len(claims)} claims: {said}.", tables=(verdict_table(claims),))


def _tally(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return NONE
    return f"{sum(outcome.verdict == 'holds' for outcome in outcomes)} of {len(outcomes)} tests"


def _section(report: Report, judged: Judged, firmly: Mapping[int, bool]) -> Section:
    claim = judged.claim
    tables = [_tests(report, judged, firmly)] if judged.outcomes else []
    figures: tuple[str, ...] = ()
    marks = ""
    if judged.outcomes and claim.plot is not None:
        lines = _lines(report, claim.plot)
        if lines:
            figures, marks = _figure(claim.plot, lines)
            tables.append(_points_table(claim.plot, lines))
    if judged.outcomes and claim.table is not None:
        tables.append(_paper_table(report, claim.table))
    verdict = f"{judged.verdict}; {judged.why}" if judged.why else judged.verdict
    return Section(
        title=f"{claim.name.upper()}. {claim.title}", short=claim.name.upper(),
        note=" ".join(filter(None, [f"{claim.source}: {claim.paper}", claim.note, f"Verdict: {verdict}."])),
        tables=tuple(tables), figures=figures, legend=marks, lines=tuple(_runs(report, claim)),
    )  # fmt: skip


def _tests(report: Report, judged: Judged, firmly: Mapping[int, bool]) -> Table:
    rows = []
    for outcome in judged.outcomes:
        test = outcome.test
        paper = NONE if test.paper is None else _number(test, test.paper)
        state = Cell(f"{outcome.verdict}{' ‡' if firmly.get(id(outcome)) else ''}", mark=_MARKS[outcome.verdict])
        needed = f"{outcome.needed:,}" if outcome.needed else ""
        rows.append((Cell(_named(report, test)), Cell(_expectation(test)), Cell(paper), _shown(outcome), Cell(
            "" if len(outcome.by_seed) < 2 else ", ".join(_number(test, _scale(test) * v) for v in outcome.by_seed)
        ), state, Cell(f"{outcome.n:,}" if outcome.n else ""), Cell(needed)))  # fmt: skip
    return Table(
        header=("test", "expected", "paper", "here", "by seed", "", "problems", "would do"), rows=tuple(rows),
        align="llrrrlrr",
    )  # fmt: skip


def _named(report: Report, test: ClaimTest) -> str:
    if test.title:
        return test.title
    sides = [_side(report, name) for name in (*names(test.first), *names(test.second))]
    how = measure_of(test.measure).title.removesuffix(", %")
    first = f"{sides[0]}, {how}"
    if len(sides) > 1:
        other = f", {measure_of(test.second_measure).title.removesuffix(', %')}" if test.second_measure else ""
        joined = " / " if measure_of(test.measure).is_amount else " less "
        first += f"{joined}{sides[1]}{other}"
    where = "" if test.generators == "together" else f", answers of {test.generators}"
    half = "" if test.half is None else f", {test.half} problems"
    return f"{first}{where}{half}{'' if test.n is None else f', N = {test.n}'}"


def _side(report: Report, name: str) -> str:
    method = report.comparison.methods.get(name)
    return _SIDES.get(name, name) if method is None else method.title or name


def _expectation(test: ClaimTest) -> str:
    return f"{_EXPECTED[test.expect]} {_scale(test) * bound_of(test):g}"


def _scale(test: ClaimTest) -> float:
    return measure_of(test.measure).scale


def _number(test: ClaimTest, value: float) -> str:
    """A number in the unit that is shown: differences with their sign."""
    measure = measure_of(test.measure)
    if test.second is not None and not measure.is_amount:
        return signed(value, 1 if measure.scale == 100 else 3)
    return f"{value:.3g}" if measure.is_amount else f"{value:.1f}" if measure.scale == 100 else f"{value:.3g}"


def _shown(outcome: Outcome) -> Cell:
    test, scale = outcome.test, _scale(outcome.test)
    value = _number(test, scale * outcome.value)
    if outcome.low is None or outcome.high is None:
        return Cell(value)
    low, high = (_number(test, scale * end) for end in (outcome.low, outcome.high))
    return Cell(value, f"[{low}, {high}]", f"±{scale * (outcome.high - outcome.low) / 2:.1f}", _MARKS[outcome.verdict])


def _firmly(claims: Sequence[Judged]) -> dict[int, bool]:
    outcomes = [outcome for judged in claims for outcome in judged.outcomes]
    return {id(outcome): stands for outcome, stands in zip(outcomes, firm(outcomes), strict=True)}


def _lines(report: Report, plot: Plot) -> dict[str, list[_Cross]]:
    """The points of each line, of the methods that were run."""
    lines: dict[str, list[_Cross]] = {}
    for name, places in plot.series.items():
        points = [
            point for place, method in places.items() if method in report.comparison.methods
            for point in _points(report, plot, place, method)
        ]  # fmt: skip
        if points:
            lines[name] = sorted(points, key=lambda point: point.x)
    return lines


def _points(report: Report, plot: Plot, place: str, method: str) -> Iterator[_Cross]:
    measure = measure_of(plot.measure)
    try:
        value, low, high = _alone(report, plot.measure, method)
        at = float(place) if plot.x_measure is None else _alone(report, plot.x_measure, method)[0]
    except DataError:
        return  # a value that this method has not, e.g. steps of a model that scores responses
    scaled = [None if end is None else measure.scale * end for end in (low, high)]
    yield _Cross(method, at, measure.scale * value, *scaled)


def _alone(report: Report, measure: str, method: str) -> tuple[float, float | None, float | None]:
    """A method's own number over all seeds."""
    seeds = [differing(runs, ClaimTest(measure=measure, first=method)) for runs in report.seeds]
    value = sum(draws.value for draws in seeds) / len(seeds)
    replicates = pooled(seeds)
    if replicates is None:
        return value, None, None
    return percentile_interval(value, replicates)


def _figure(plot: Plot, lines: Mapping[str, Sequence[_Cross]]) -> tuple[tuple[str, ...], str]:
    measure = measure_of(plot.measure)
    if plot.x_measure is None and not plot.x_label:  # bars
        bars = [
            Bar(name=name, parts=((measure.title, point.y),), text=f"{point.y:.3g}")
            for name, points in lines.items() for point in points
        ]  # fmt: skip
        return (bar_plot(plot.title, bars, x_label=measure.title, names=[measure.title]),), ""
    series = [
        Series.numbered(index, name, [
            Point(x=p.x, y=p.y, low=p.low, high=p.high, tip=f"{name}, {p.x:g}: {p.y:.1f}") for p in points
        ])
        for index, (name, points) in enumerate(lines.items())
    ]  # fmt: skip
    ticks = sorted({point.x for points in lines.values() for point in points}) if plot.log_x else ()
    x_label = plot.x_label or measure_of(plot.x_measure or "").title
    drawn = line_plot(
        plot.title, series, x_label=x_label, y_label=measure.title, log_x=plot.log_x and plot.x_measure is None,
        x_ticks=() if plot.x_measure else ticks,
    )  # fmt: skip
    return (drawn,), legend(series)


def _points_table(plot: Plot, lines: Mapping[str, Sequence[_Cross]]) -> Table:
    measure = measure_of(plot.measure)
    x_name = plot.x_label or (measure_of(plot.x_measure).title if plot.x_measure else "")
    rows = tuple(
        (Cell(name), Cell(f"{point.x:.3g}" if x_name else ""), _with_ends(measure, point))
        for name, points in lines.items() for point in points
    )  # fmt: skip
    return Table(title=plot.title, header=("", x_name, measure.title), rows=rows, align="lrr")


def _with_ends(measure: Measure, point: _Cross) -> Cell:
    spec = ".1f" if measure.scale == 100 else ".3g"
    if point.low is None or point.high is None:
        return Cell(f"{point.y:{spec}}")
    return Cell(f"{point.y:{spec}}", f"[{point.low:{spec}}, {point.high:{spec}}]")


def _paper_table(report: Report, table: PaperTable) -> Table:
    """The paper's number and ours in a cell, by the places that our generators have in the paper's table."""
    ours = {
        f"{report.preset.papers.get(name, name)} @{n}": (name, n)
        for name in report.comparison.generators for n in report.comparison.sizes
    }  # fmt: skip
    shown = [column for column in table.columns[:-1] if column in ours]
    rows: list[Cells] = []
    for method, numbers in table.rows.items():
        if method not in report.comparison.methods:
            continue
        cells = []
        for column, number in zip(table.columns, numbers, strict=True):
            if column in shown or column == table.columns[-1]:
                where = ours.get(column)
                test = ClaimTest(measure=table.measure, first=method) if where is None else ClaimTest(
                    measure=table.measure, first=method, generators=where[0], n=where[1]
                )  # fmt: skip
                value = sum(differing(runs, test).value for runs in report.seeds) / len(report.seeds)
                cells.append(Cell(f"{number:g} / {measure_of(table.measure).scale * value:.1f}"))
        rows.append((Cell(_side(report, method)), *cells))
    return Table(
        title=table.title, note="The paper's number / ours. A column of ours stands for the paper's whose generator "
        "has its place; levels are not comparable, orders are.",
        header=("", *shown, table.columns[-1]), rows=tuple(rows),
    )  # fmt: skip


def _runs(report: Report, claim: Claim) -> list[str]:
    """Where the numbers of a claim are."""
    methods = sorted((claim.methods() | claim.shown()) & set(report.comparison.methods))
    if not methods:
        return ["Runs: `verify`."] if any(test.measure == VERIFIED for test in claim.tests) else []
    seeds = ", ".join(str(runs.seed) for runs in report.seeds)
    return [f"Runs: seeds {seeds}, `seed-*/methods/` {', '.join(methods)}."]


def _about(report: Report) -> dict[str, str]:
    comparison = report.comparison
    train, test = comparison.train, comparison.test
    drawn = (
        f"{train.n_problems:,} problems, {train.n} responses each" if train.n_problems else f"{train.n} responses each"
    )
    train_size = f"rollouts of {', '.join(train.rollouts)}" if train.rollouts else drawn
    generators, sizes = ", ".join(comparison.generators), ", ".join(map(str, comparison.sizes))
    return {
        "preset": report.preset.name,
        "seeds": ", ".join(str(runs.seed) for runs in report.seeds),
        "start and reference": comparison.model,
        "training, each seed": train_size,
        "test, each seed": f"{test.n_problems or 'given'} problems; answers of {generators}; N = {sizes}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "devices": ", ".join(report.cost.devices),
        "seconds from start to end": f"{report.cost.seconds:,.0f}",
    }
