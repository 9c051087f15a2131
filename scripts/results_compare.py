"""Tables of a comparison over several seeds for docs/results: `python scripts/results_compare.py RUN [RUN ...] > PAGE`.

Each RUN is a folder that `freeprm compare` made. Accuracies and differences are over the problems of all runs together,
with 95 % intervals over these problems; how much the runs themselves differ stands in a table of its own.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from freeprm.experiments.comparison.measures import (
    NULL,
    Accuracies,
    Measured,
    Place,
    Way,
    accuracy_metrics,
    on_shared_problems,
    read_accuracies,
    read_weightings,
    step_metrics,
    tie_metrics,
)
from freeprm.experiments.comparison.settings import Comparison, Folders
from freeprm.experiments.comparison.tables import MethodCost, all_tables, method_costs
from freeprm.io.config import build
from freeprm.io.runs import read_manifest, read_metrics
from freeprm.report.table import Cell, Table, markdown
from freeprm.types import Metric


class Run(NamedTuple):
    """One run, as it left itself."""

    comparison: Comparison
    folders: Folders
    described: Mapping[str, Any]


def main() -> None:
    runs = [read_run(Path(argument)) for argument in sys.argv[1:]]
    comparison = runs[0].comparison
    shared = on_shared_problems(comparison, together(runs))
    pooled = accuracy_metrics(shared.accuracies, against=comparison.against, seed=0)
    pooled += tie_metrics(together(runs, column="tied"), shared.accuracies, seed=0)
    steps = spread([list(step_metrics(run.comparison, run.folders)) for run in runs])
    print(f"# {comparison.title}, {len(runs)} seeds\n")
    print("\n".join(f"    {run.described['command']}" for run in runs))
    print(f"    python scripts/results_compare.py {' '.join(sys.argv[1:])}\n")
    print("First errors, areas and cost are means over the seeds; the first two stand with the least and the most.\n")
    weightings = read_weightings(comparison, runs[0].folders)
    found = Measured([*pooled, *steps], shared.left_out, weightings)
    print(f"{floor(pooled, comparison)}\n")
    for table in [*all_tables(comparison, found, mean_costs(runs)), averages_by_seed(runs)]:
        print(f"{markdown(table)}\n")
    print(f"Seconds from start to end: {', '.join(f'{seconds(run):.0f}' for run in runs)}.")


def read_run(folder: Path) -> Run:
    """A run with its settings."""
    described = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    return Run(build(Comparison, [described["comparison"]]), Folders(folder), described)


def floor(metrics: Sequence[Metric], comparison: Comparison) -> str:
    """What best-of-N is held against, and who is above it."""
    averages = {m.selector: 100 * m.value for m in metrics if is_average(m) and m.scorer is None}
    gains = {
        str(m.scorer): m
        for m in metrics
        if m.metric == "accuracy_difference" and str(m.selector).endswith(f" - {NULL}")
    }
    groups: dict[str, list[str]] = {"above it": [], "below it": [], "not clearly off it": []}
    for name, gain in gains.items():
        where = "above it" if (gain.low or 0) > 0 else "below it" if (gain.high or 0) < 0 else "not clearly off it"
        groups[where].append(comparison.methods[name].title or name)
    said = "; ".join(f"{where}: {', '.join(names)}" for where, names in groups.items() if names)
    return (
        f"The floor of best-of-N is a random distinct text, {averages[NULL]:.1f} % on average, and not one response, "
        f"{averages['random']:.1f} %: a scorer that knows nothing inside a problem gives equal texts equal scores, so "
        "it chooses among different texts, and right ones repeat more often than wrong ones. By paired 95 % intervals, "
        f"{said}."
    )


def together(runs: Sequence[Run], *, column: str = "accuracy") -> Accuracies:
    """The columns of all runs over the problems of all runs, which differ by seed."""
    found: dict[Way, dict[Place, dict[str, float]]] = {}
    for run in runs:
        for way, columns in read_accuracies(run.comparison, run.folders, column=column).items():
            for place, values in columns.items():
                named = {f"seed {run.described['seed']}, {problem}": value for problem, value in values.items()}
                found.setdefault(way, {}).setdefault(place, {}).update(named)
    return found


def spread(runs: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Each metric's mean over the runs, with the least and the most instead of an interval."""
    found: dict[tuple[str | None, ...], list[Metric]] = {}
    for metrics in runs:
        for metric in metrics:
            found.setdefault((metric.metric, metric.scorer, metric.selector, metric.group), []).append(metric)
    return [
        replace(
            same[0], value=mean(m.value for m in same), low=min(m.value for m in same), high=max(m.value for m in same)
        )
        for same in found.values()
    ]


def mean_costs(runs: Sequence[Run]) -> dict[str, MethodCost]:
    """The mean bill of each method."""
    bills = [method_costs(run.comparison, run.folders) for run in runs]
    return {name: _mean_bill([bill[name] for bill in bills]) for name in bills[0]}


def _mean_bill(bills: Sequence[MethodCost]) -> MethodCost:
    known = {name: [getattr(bill, name) for bill in bills] for name in MethodCost.__slots__}
    return MethodCost(**{name: None if None in values else mean(values) for name, values in known.items()})


def averages_by_seed(runs: Sequence[Run]) -> Table:
    """The average over all columns, run by run: what training and problems of another seed change."""
    families = {"best_of_n": "best-of-N", "weighted_vote": "vote"}
    averages = [
        {(m.scorer, str(m.selector).partition("/")[0]): m for m in read_metrics(run.folders.out) if is_average(m)}
        for run in runs
    ]
    rows = []
    for name, method in runs[0].comparison.methods.items():
        values = [average[name, family].value for family in families for average in averages]
        rows.append((Cell(method.title or name), *(Cell(f"{100 * value:.1f}") for value in values)))
    seeds = [run.described["seed"] for run in runs]
    return Table(
        title="Averages by seed, %",
        header=("reward model", *(f"{text}, seed {seed}" for text in families.values() for seed in seeds)),
        rows=tuple(rows),
    )


def is_average(metric: Metric) -> bool:
    """The accuracy over all columns."""
    return metric.metric == "accuracy" and metric.n is None


def seconds(run: Run) -> float:
    """From start to end."""
    found: float = (read_manifest(run.folders.out) or {})["cost"]["seconds"]
    return found


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
