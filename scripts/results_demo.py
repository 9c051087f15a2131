"""Tables of the demo over several seeds, for docs/results: `python scripts/results_demo.py RUN [RUN ...] > PAGE`.

Each RUN is a folder that `freeprm demo` made. A cell is the mean over the runs with the smallest and the
largest value; differences are shown for each run with their paired 95 % interval.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from freeprm.io.runs import read_manifest, read_metrics
from freeprm.types import Metric

STEP_METRICS = ("processbench_f1", "first_error_accuracy", "step_auc", "response_auc", "response_auc_within_problems")


FLOOR = """random_distinct_text is the floor of best-of-N: a scorer that knows nothing inside a problem gives equal
texts equal scores, so it chooses among different texts, and right ones repeat more often than wrong ones. Accuracies
are expectations over ties."""


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]]
    runs = [[metric for metric in read_metrics(folder) if metric.group is None] for folder in folders]
    print("## Accuracy, %\n")
    print_accuracy(runs)
    print(f"\n{FLOOR}\n\n## First place shared, % of problems\n")
    print_accuracy(runs, metric="tied")
    print("\n## Paired differences, points\n")
    print_differences(runs)
    print("\n## Steps and responses\n")
    print_steps(runs)
    print("\n## Cost\n")
    print_cost(folders)


def print_accuracy(runs: list[list[Metric]], *, metric: str = "accuracy") -> None:
    """One row a scorer and selector, one column an n."""
    shown = [[found for found in run if found.metric == metric] for run in runs]
    sizes = sorted({metric.n for metric in shown[0] if metric.n is not None})
    print("| scorer | chosen by | " + " | ".join(f"N = {n}" for n in sizes) + " |")
    print("| --- | --- |" + " --- |" * len(sizes))
    for key in dict.fromkeys((metric.scorer, metric.selector) for metric in shown[0]):
        cells = [
            spread(100 * m.value for run in shown for m in run if (m.scorer, m.selector, m.n) == (*key, n))
            for n in sizes
        ]
        print(f"| {key[0] or ''} | {key[1]} | " + " | ".join(cells) + " |")


def print_differences(runs: list[list[Metric]]) -> None:
    """The largest n only: every run with its interval."""
    shown = [[metric for metric in run if metric.metric == "accuracy_difference"] for run in runs]
    largest = max(metric.n or 0 for metric in shown[0])
    print(f"At N = {largest}.\n")
    print("| scorer | chosen by | " + " | ".join(f"seed {run[0].seed}" for run in shown) + " |")
    print("| --- | --- |" + " --- |" * len(shown))
    for key in dict.fromkeys((m.scorer, m.selector) for m in shown[0] if m.n == largest):
        cells = [interval(m) for run in shown for m in run if (m.scorer, m.selector, m.n) == (*key, largest)]
        print(f"| {key[0]} | {key[1]} | " + " | ".join(cells) + " |")


def print_steps(runs: list[list[Metric]]) -> None:
    """Step-level metrics: F1 in percent, areas as they are."""
    shown = [[metric for metric in run if metric.metric in STEP_METRICS] for run in runs]
    columns = list(dict.fromkeys((metric.metric, metric.selector) for metric in shown[0]))
    print("| scorer | " + " | ".join(f"{name} ({how})" if how else name for name, how in columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for scorer in dict.fromkeys(metric.scorer for metric in shown[0]):
        cells = []
        for column in columns:
            values = [m.value for run in shown for m in run if (m.scorer, m.metric, m.selector) == (scorer, *column)]
            cells.append(spread((value for value in values), digits=3))
        print(f"| {scorer} | " + " | ".join(cells) + " |")


def print_cost(folders: list[Path]) -> None:
    """Seconds and FLOPs of each stage."""
    stages = sorted({path.parent.name for folder in folders for path in folder.glob("*/manifest.json")})
    print("| stage | seconds | FLOPs |\n| --- | --- | --- |")
    for stage in stages:
        costs = [(read_manifest(folder / stage) or {}).get("cost", {}) for folder in folders]
        seconds = spread((cost["seconds"] for cost in costs if cost), digits=0)
        print(f"| {stage} | {seconds} | {spread((cost['flops'] / 1e9 for cost in costs if cost), digits=0)} G |")
    totals = [
        json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cost"]["seconds"] for folder in folders
    ]
    print(f"\nSeconds from start to report: {', '.join(f'{total:.0f}' for total in totals)}.")


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
