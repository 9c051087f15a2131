"""Tables of the demo over several seeds, for docs/results: `python scripts/results_demo.py RUN [RUN ...] > PAGE`.

Each RUN is a folder that `freeprm demo` made. A cell is the mean over the runs with the smallest and the
largest value; differences are shown for each run with their paired 95 % interval.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from freeprm.io.lineage import runs_in
from freeprm.io.runs import read_manifest, read_metrics
from freeprm.report.table import Table, markdown, texts
from freeprm.types import Metric

Runs = list[list[Metric]]
STEP_METRICS = ("processbench_f1", "first_error_accuracy", "step_auc", "response_auc", "response_auc_within_problems")
FLOOR = """random_distinct_text is the floor of best-of-N: a scorer that knows nothing inside a problem gives equal
texts equal scores, so it chooses among different texts, and right ones repeat more often than wrong ones. Accuracies
are expectations over ties."""


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]]
    runs = [[metric for metric in read_metrics(folder) if metric.group is None] for folder in folders]
    tables = [
        by_size(runs, "accuracy", title="Accuracy, %", note=FLOOR),
        by_size(runs, "tied", title="First place shared, % of problems"),
        differences(runs),
        steps(runs),
        costs(folders),
    ]
    print("\n\n".join(map(markdown, tables)))
    totals = [(read_manifest(folder) or {})["cost"]["seconds"] for folder in folders]
    print(f"\nSeconds from start to report: {', '.join(f'{total:.0f}' for total in totals)}.")


def by_size(runs: Runs, metric: str, *, title: str, note: str = "") -> Table:
    """One row a scorer and selector, one column an n."""
    shown = [[found for found in run if found.metric == metric] for run in runs]
    sizes = sorted({metric.n for metric in shown[0] if metric.n is not None})
    rows = []
    for scorer, selector in dict.fromkeys((metric.scorer, metric.selector) for metric in shown[0]):
        values = [[100 * m.value for m in of(shown, scorer, selector) if m.n == n] for n in sizes]
        rows.append(texts(scorer or "", selector or "", *map(spread, values)))
    header = ("scorer", "chosen by", *(f"N = {n}" for n in sizes))
    return Table(title=title, note=note, header=header, rows=tuple(rows), align="ll".ljust(len(header), "r"))


def differences(runs: Runs) -> Table:
    """The largest n only: every run with its interval."""
    shown = [[metric for metric in run if metric.metric == "accuracy_difference"] for run in runs]
    largest = max(metric.n or 0 for metric in shown[0])
    rows = []
    for scorer, selector in dict.fromkeys((m.scorer, m.selector) for m in shown[0] if m.n == largest):
        cells = [interval(metric) for metric in of(shown, scorer, selector) if metric.n == largest]
        rows.append(texts(scorer or "", selector or "", *cells))
    header = ("scorer", "chosen by", *(f"seed {run[0].seed}" for run in shown))
    return Table(
        title="Paired differences, points", note=f"At N = {largest}.", header=header, rows=tuple(rows),
        align="ll".ljust(len(header), "r"),
    )  # fmt: skip


def steps(runs: Runs) -> Table:
    """Step-level metrics: F1 as a share, areas as they are."""
    shown = [[metric for metric in run if metric.metric in STEP_METRICS] for run in runs]
    columns = list(dict.fromkeys((metric.metric, metric.selector) for metric in shown[0]))
    rows = []
    for scorer in dict.fromkeys(metric.scorer for metric in shown[0]):
        values = [[m.value for m in of(shown, scorer, how) if m.metric == name] for name, how in columns]
        rows.append(texts(scorer or "", *(spread(found, digits=3) for found in values)))
    names = [f"{name} ({how})" if how else name for name, how in columns]
    return Table(title="Steps and responses", header=("scorer", *names), rows=tuple(rows))


def costs(folders: list[Path]) -> Table:
    """Seconds and FLOPs of each stage."""
    made = [{run.folder.name: run.cost for run in runs_in([folder])} for folder in folders]
    rows = []
    for stage in sorted({stage for run in made for stage in run}):
        found = [run[stage] for run in made if stage in run]
        seconds = spread([cost.seconds for cost in found], digits=0)
        rows.append(texts(stage, seconds, f"{spread([(cost.flops or 0) / 1e9 for cost in found], digits=0)} G"))
    return Table(title="Cost", header=("stage", "seconds", "FLOPs"), rows=tuple(rows))


def of(runs: Runs, scorer: str | None, selector: str | None) -> Iterator[Metric]:
    """Those of one scorer and selector, run by run."""
    return (metric for run in runs for metric in run if (metric.scorer, metric.selector) == (scorer, selector))


def spread(values: Iterable[float], *, digits: int = 1) -> str:
    """`mean (least to most)`."""
    found = list(values)
    if not found:
        return ""
    mean = sum(found) / len(found)
    return f"{mean:.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"


def interval(metric: Metric) -> str:
    """`+14.5 [9.0, 20.0]` in points."""
    low, high = (100 * (bound if bound is not None else float("nan")) for bound in (metric.low, metric.high))
    return f"{100 * metric.value:+.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
