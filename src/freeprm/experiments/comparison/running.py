"""A whole comparison: rollouts, labels, methods side by side, and what they gave; resumed by the same command."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from freeprm.experiments.comparison.measures import measured
from freeprm.experiments.comparison.runs import Folders, make_labels, make_method, make_rollouts, test_split
from freeprm.experiments.comparison.settings import Comparison, Generator
from freeprm.experiments.comparison.tables import all_tables, method_costs, total_cost
from freeprm.experiments.graph import Job, run_jobs
from freeprm.io.rows import write_json
from freeprm.io.runs import RunFolder
from freeprm.report.table import Table, markdown
from freeprm.stages.selection import select
from freeprm.types import Cost, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a comparison gave."""

    folder: Path
    """Holds compare.md, compare.json and metrics.json."""
    metrics: list[Metric]
    tables: list[Table]
    counts: Mapping[str, int]
    """Methods, and problems left out by column."""
    cost: Cost
    """Of everything together."""


def compare(comparison: Comparison, *, out: Path, seed: int, workers: int, command: str) -> Compared:
    """Train and score all methods on the same rollouts, and put them side by side.

    The folder is one of the same rollouts and the same seed; a method may be added to it later.

    Args:
        comparison: what is compared, and on what.
        out: the folder of all run folders.
        seed: of problems, samples and training.
        workers: processes that make methods side by side; with 1 it is done in this one.
        command: the command line that makes this run, for the page.

    Raises:
        FreePRMError: see the stages.
    """
    folders = Folders(out)
    with RunFolder(out, stage="compare", settings={**comparison.shared(), "seed": seed}) as run:
        if run.complete:
            run.reopen()  # methods may have been added
        make_rollouts(comparison, folders, seed=seed)
        for split in map(test_split, comparison.generators):
            select([folders.graded(split)], out=folders.baseline(split), n=comparison.sizes, seed=seed)
        for name, labels in comparison.labels.items():
            if labels.model_of is None:
                make_labels(comparison, folders, name, seed=seed)  # draws in processes of its own
        run_jobs(_jobs(comparison, folders, seed), workers=workers, description="compare", ended=run.save_time)
        found = measured(comparison, folders, seed=seed)
        bills = method_costs(comparison, folders)
        tables = all_tables(comparison, found, bills)
        run.write_metrics(found.metrics)
        lost = {f"problems left out of {at.generator} @{at.n}": count for at, count in found.left_out.items()}
        counts = {"methods": len(comparison.methods), **lost}
        cost = run.finish(cost=total_cost(folders), counts=counts)
    costs = {name: asdict(bill) for name, bill in bills.items()}
    described = {"command": command, "seed": seed, "comparison": asdict(comparison), "costs": costs}
    write_json(out / "compare.json", {**described, "metrics": [asdict(metric) for metric in found.metrics]})
    text = page(comparison, tables, cost, seed=seed, command=command)
    (out / "compare.md").write_text(text, encoding="utf-8")
    return Compared(folder=out, metrics=found.metrics, tables=tables, counts=counts, cost=cost)


def _jobs(comparison: Comparison, folders: Folders, seed: int) -> list[Job]:
    """A job for each method, and one for labels that need a method's model, each behind those that it needs."""
    jobs: list[Job] = []
    made: set[str] = set()
    for name in comparison.order():
        needs = set(comparison.parents(name))
        labels = comparison.methods[name].labels
        if labels is not None and (labeler := comparison.labels[labels].model_of) is not None:
            needs.add(f"labels-{labels}")
            if labels not in made:
                work = partial(make_labels, comparison, folders, labels, seed=seed)
                jobs.append(_job(folders, f"labels-{labels}", {labeler}, work))
                made.add(labels)
        jobs.append(_job(folders, name, needs, partial(make_method, comparison, folders, name, seed=seed)))
    return jobs


def _job(folders: Folders, name: str, needs: set[str], work: "partial[None]") -> Job:
    return Job(name=name, needs=frozenset(needs), work=work, log=folders.log(name))


def page(comparison: Comparison, tables: Sequence[Table], cost: Cost, *, seed: int, command: str) -> str:
    """The whole text, in Markdown."""
    parts = [f"# {comparison.title}", f"    {command}", "\n".join(_described(comparison, cost, seed))]
    return "\n\n".join([*parts, *map(markdown, tables)]) + "\n"


def _described(comparison: Comparison, cost: Cost, seed: int) -> Iterator[str]:
    train, dev, test = comparison.train, comparison.dev, comparison.test
    generators = ", ".join(f"{name} ({_source(item)})" for name, item in comparison.generators.items())
    yield f"- start and reference of everything that is trained: {comparison.model}"
    yield f"- training: {_amount(train.n_problems, train.n, train.rollouts)}"
    yield f"- dev, for thresholds: {_amount(dev.n_problems, dev.n, dev.rollouts)}"
    yield f"- test: {_amount(test.n_problems, test.n, ())}; answered by {generators}"
    yield f"- temperature {comparison.sampling.temperature:g}, seed {seed}"
    yield f"- {cost.seconds:,.0f} seconds from start to end"


def _amount(n_problems: int | None, n: int, rollouts: Sequence[str]) -> str:
    if rollouts:
        return f"rollouts of {', '.join(rollouts)}"
    return f"{n_problems:,} problems, {n} responses each" if n_problems else f"all problems, {n} responses each"


def _source(generator: Generator) -> str:
    return generator.model or f"rollouts of {', '.join(generator.rollouts)}"
