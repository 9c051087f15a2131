"""The same small search for every method that is trained, on a dev split, so that rivals run at their best.

Each try is trained on rollouts of a seed of its own and chosen among by best-of-n on dev. Test problems are not drawn.
What comes out is a table of what was tried; the settings that did best are written into the comparison's file by hand.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from freeprm.errors import ConfigError
from freeprm.experiments.comparison.running import Compared, chosen, labelled, overlaid, rollouts, scored, trained
from freeprm.experiments.comparison.settings import Comparison, Folders, Method
from freeprm.experiments.comparison.tables import total_cost
from freeprm.experiments.graph import PlannedRun, make_runs
from freeprm.io.rows import write_text
from freeprm.io.runs import RunFolder, read_metrics
from freeprm.report.metrics import metric_cell
from freeprm.report.table import Cell, Cells, Table, markdown
from freeprm.types import Metric

DEV = "dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting of one method, and how it did on dev."""

    method: str
    settings: Mapping[str, Any]
    """Those tried, over the method's own."""
    best_of_n: Metric
    weighted_vote: Metric
    is_best: bool
    """The highest best-of-n of its method; the first of equals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned(Compared):
    """What a search gave; its folder holds tune.md, its metrics have each trial's name as the scorer."""

    trials: list[Trial]


def tune(comparison: Comparison, *, out: Path, seed: int, workers: int, command: str) -> Tuned:
    """Train every method with every setting that is to be tried, and measure it on dev.

    A method that goes on from another's model goes on from that one's best trial.

    Raises:
        ConfigError: there is nothing to try.
    """
    folders = Folders(out)
    dev = comparison.tuning.dev
    tried = {
        name: _tries(comparison, method) for name, method in comparison.methods.items() if method.train is not None
    }
    if not comparison.tuning.tries and not any(method.tune for method in comparison.methods.values()):
        raise ConfigError(
            "tuning.tries: there is none; expected settings, e.g. [{ trainer = { learning_rate = 1e-4 } }]"
        )
    settings = {**comparison.shared(), "dev": asdict(dev), "n": comparison.tuning.n, "seed": seed}
    with RunFolder(out, stage="tune", settings=settings) as run:
        if run.complete:
            run.reopen()  # methods or tries may have been added
        shared = [
            *rollouts(comparison, folders, "train", comparison.train, seed=seed),
            *rollouts(comparison, folders, DEV, dev, seed=seed),
        ]
        make = partial(make_runs, out=out, workers=workers, description="tune", ended=run.save_time)
        make(shared)
        trials: list[Trial] = []
        best: dict[str, str] = {}
        while wave := [name for name in tried if name not in best and set(comparison.parents(name)) <= set(best)]:
            derived = _derived(comparison, {name: tried[name] for name in wave}, best)
            make(list(_planned(derived, folders, seed=seed)))
            for name in wave:
                found = list(_measured(folders, name, tried[name]))
                trials += found
                best[name] = _trial_name(name, next(index for index, trial in enumerate(found) if trial.is_best))
        metrics = [metric for trial in trials for metric in (trial.best_of_n, trial.weighted_vote)]
        run.write_metrics(metrics)
        counts = {"trials": len(trials)}
        cost = run.finish(cost=total_cost(folders), counts=counts)
    table = _table(trials)
    write_text(out / "tune.md", f"    {command}\n\n{markdown(table)}\n")
    return Tuned(
        folder=out, metrics=metrics, counts=counts, cost=cost, operations=[], tables=[table], trials=trials
    )  # fmt: skip


def _tries(comparison: Comparison, method: Method) -> Sequence[Mapping[str, Any]]:
    return (*comparison.tuning.tries, *method.tune) or ({},)


def _trial_name(method: str, index: int) -> str:
    return f"{method}-try{index}"


def _derived(
    comparison: Comparison, tried: Mapping[str, Sequence[Mapping[str, Any]]], best: Mapping[str, str]
) -> Comparison:
    """The comparison whose methods are the trials, which go on from the best trials so far."""
    methods = {}
    for name, tries in tried.items():
        method = comparison.methods[name]
        for index, settings in enumerate(tries):
            methods[_trial_name(name, index)] = replace(
                method, train=overlaid(method.train or {}, settings), start=best.get(method.start or "")
            )
    labels = {
        name: replace(labels, model_of=best.get(labels.model_of or "")) for name, labels in comparison.labels.items()
    }
    return replace(comparison, methods=methods, labels=labels)


def _planned(derived: Comparison, folders: Folders, *, seed: int) -> Iterator[PlannedRun]:
    """Each trial: trained, scored on dev, and chosen by; before them the step labels that they are trained on."""
    for labels in dict.fromkeys(method.labels for method in derived.methods.values()):
        if labels is not None:
            yield labelled(derived, folders, labels, seed=seed)
    for name in derived.methods:
        yield trained(derived, folders, name, seed=seed)
        yield scored(derived, folders, name, DEV)
        yield chosen(derived, folders, name, DEV, n=[derived.tuning.n], seed=seed)


def _measured(folders: Folders, name: str, tries: Sequence[Mapping[str, Any]]) -> Iterator[Trial]:
    found = []
    for index in range(len(tries)):
        trial = _trial_name(name, index)
        metrics = [m for m in read_metrics(folders.selection(trial, DEV)) if m.metric == "accuracy" and m.scorer]
        by_family = {str(metric.selector).partition("/")[0]: replace(metric, scorer=trial) for metric in metrics}
        found.append((by_family["best_of_n"], by_family["weighted_vote"]))
    values = [best_of_n.value for best_of_n, _ in found]
    for index, (best_of_n, weighted_vote) in enumerate(found):
        yield Trial(
            method=name, settings=tries[index], best_of_n=best_of_n, weighted_vote=weighted_vote,
            is_best=index == values.index(max(values)),
        )  # fmt: skip


def _table(trials: Sequence[Trial]) -> Table:
    first = trials[0].best_of_n
    return Table(
        title="Tried on dev",
        note=f"{first.count} problems; * marks the best of a method by best-of-{first.n}, the first of equals.",
        header=("method", "settings", f"best-of-{first.n}, %", f"weighted vote of {first.n}, %"),
        rows=tuple(map(_row, trials)),
        align="llrr",
    )


def _row(trial: Trial) -> Cells:
    named = f"{trial.method} *" if trial.is_best else trial.method
    return Cell(named), Cell(described(trial.settings)), metric_cell(trial.best_of_n), metric_cell(trial.weighted_vote)


def described(settings: Mapping[str, Any], prefix: str = "") -> str:
    """`trainer.learning_rate = 0.0005, beta = 0.5`."""
    parts = []
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        parts.append(described(value, f"{prefix}{name}.") if nested else f"{prefix}{name} = {value}")
    return ", ".join(parts) or "as they are"
