"""A whole comparison: the runs that it is made of, and what they gave; resumed by the same command."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from freeprm.experiments.comparison.measures import measured
from freeprm.experiments.comparison.settings import (
    UNTRAINED,
    Comparison,
    Folders,
    Generator,
    Source,
    Split,
    benchmark_split,
    policy_split,
    source_split,
    test_split,
)
from freeprm.experiments.comparison.tables import all_tables, method_costs, total_cost
from freeprm.experiments.graph import PlannedRun, make_runs
from freeprm.io.files import read_rows
from freeprm.io.rows import write_json, write_text
from freeprm.io.runs import RunFolder
from freeprm.report.table import Table, markdown
from freeprm.scorers.base import ScorerSource
from freeprm.stages.base import RunResult
from freeprm.stages.evaluation import evaluate
from freeprm.stages.grading import grade
from freeprm.stages.labeling import label
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.stages.selection import select
from freeprm.stages.training import train
from freeprm.training.settings import filled, load_settings
from freeprm.types import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared(RunResult):
    """What a comparison gave; its folder holds compare.md, compare.json and metrics.json."""

    tables: list[Table]


def compare(comparison: Comparison, *, out: Path, seed: int, workers: int, command: str) -> Compared:
    """Train and score all methods on the same rollouts, and put them side by side.

    The folder is one of the same rollouts and the same seed; a method may be added to it later.

    Args:
        comparison: what is compared, and on what.
        out: the folder of all run folders.
        seed: of problems, samples and training.
        workers: processes that make methods side by side; with 1 it is done in this one.
        command: the command line that makes this run, for the page.
    """
    folders = Folders(out)
    with RunFolder(out, stage="compare", settings={**comparison.shared(), "seed": seed}) as run:
        if run.complete:
            run.reopen()  # methods may have been added
        runs = list(planned(comparison, folders, seed=seed))
        make_runs(runs, out=out, workers=workers, description="compare", ended=run.save_time)
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
    write_text(out / "compare.md", page(comparison, tables, cost, seed=seed, command=command))
    return Compared(
        folder=out, metrics=found.metrics, counts=counts, cost=cost, operations=[], tables=tables
    )  # fmt: skip


def planned(comparison: Comparison, folders: Folders, *, seed: int) -> Iterator[PlannedRun]:
    """All runs of a comparison; the test problems are the same for all generators.

    Raises:
        ConfigError: a method's settings of training have an unknown name or a bad value.
    """
    yield from rollouts(comparison, folders, "train", comparison.train, seed=seed)
    trainings = [overlaid(comparison.training, m.train) for m in comparison.methods.values() if m.train is not None]
    named = {source for settings in trainings for source in _sources(comparison, settings)}
    for name, source in comparison.sources.items():
        if name in named:
            yield from _other_rollouts(comparison, folders, name, source, seed=seed)
    with_truth = {test_split(name) for name, generator in comparison.generators.items() if _may_have_truth(generator)}
    if with_truth:  # thresholds are fitted on it
        yield from rollouts(comparison, folders, "dev", comparison.dev, seed=seed)
    for name, generator in comparison.generators.items():
        test = Split(n_problems=comparison.test.n_problems, n=comparison.test.n, rollouts=generator.rollouts)
        yield from rollouts(comparison, folders, test_split(name), test, seed=seed, model=generator.model)
    for split in map(test_split, comparison.generators):
        yield PlannedRun(
            folder=folders.baseline(split), stage=partial(select, n=comparison.sizes, seed=seed),
            inputs=(folders.graded(split),), log="baselines",
        )  # fmt: skip
    wanted = {method.labels for method in comparison.methods.values()}
    for name, labels in comparison.labels.items():
        if name in wanted or labels.model_of is None:
            yield labelled(comparison, folders, name, seed=seed)
    for name in comparison.policies.methods:
        yield from _answered(comparison, folders, name, seed=seed)
    for name, method in comparison.methods.items():
        if method.train is not None:
            yield trained(comparison, folders, name, seed=seed)
        if with_truth:
            yield scored(comparison, folders, name, "dev")
        for split in map(test_split, comparison.answered_by(name)):
            yield scored(comparison, folders, name, split)
            yield chosen(comparison, folders, name, split, n=comparison.sizes, seed=seed)
            dev = (folders.scores(name, "dev"),) if split in with_truth else ()
            yield PlannedRun(
                folder=folders.evaluation(name, split),
                stage=partial(evaluate_steps, dev=dev, aggregator=method.aggregator, seed=seed),
                inputs=(folders.scores(name, split),), needs=dev, log=name,
            )  # fmt: skip
        for benchmark, item in comparison.benchmarks.items():
            split = benchmark_split(benchmark)
            yield scored(comparison, folders, name, split, inputs=tuple(map(Path, item.rollouts)))
            fitted_on = (folders.scores(name, benchmark_split(item.dev)),) if item.dev else ()
            yield PlannedRun(
                folder=folders.evaluation(name, split),
                stage=partial(evaluate_steps, dev=fitted_on, aggregator=method.aggregator, seed=seed),
                inputs=(folders.scores(name, split),), needs=fitted_on, log=name,
            )  # fmt: skip


def rollouts(
    comparison: Comparison, folders: Folders, name: str, split: Split, *, seed: int, model: str | None = None,
    needs: tuple[Path, ...] = (),
) -> Iterator[PlannedRun]:  # fmt: skip
    """Draw a split's rollouts, unless they are given, and grade them.

    Args:
        comparison: how to draw.
        folders: where.
        name: train, dev, test-GENERATOR, train-SOURCE or test-by-METHOD.
        split: how much, or what to take instead.
        seed: of problems and samples.
        model: who draws; the model that everything starts from if not given.
        needs: the drawer's folder, where another run makes it.
    """
    inputs = tuple(map(Path, split.rollouts))
    if not inputs:
        drawing = comparison.sampling
        drawer = model or comparison.model
        draw = partial(
            sample, drawing.problems, model=drawer, split=name.partition("-")[0], n_problems=split.n_problems,
            n=split.n, temperature=drawing.temperature, top_p=drawing.top_p, max_new_tokens=drawing.max_new_tokens,
            seed=seed, problem_seed=seed, engine=drawing.engine, dataset_options=drawing.dataset_options,
            engine_options=drawing.engine_options, logprobs=drawing.logprobs and drawer == comparison.model,
        )  # fmt: skip
        inputs = (folders.sampled(name),)
        yield PlannedRun(folder=inputs[0], stage=draw, needs=needs, alone=not needs)
    yield PlannedRun(folder=folders.graded(name), stage=grade, inputs=inputs, alone=not needs)


def _other_rollouts(
    comparison: Comparison, folders: Folders, name: str, source: Source, *, seed: int
) -> Iterator[PlannedRun]:
    """The rollouts of a source, which methods mix in or replace others by."""
    options = {**comparison.sampling.dataset_options, **source.dataset_options}
    drawing = replace(comparison, sampling=replace(comparison.sampling, dataset_options=options))
    split = Split(
        n_problems=source.n_problems or comparison.train.n_problems, n=comparison.train.n, rollouts=source.rollouts
    )
    yield from rollouts(drawing, folders, source_split(name), split, seed=seed, model=source.model)


def _answered(comparison: Comparison, folders: Folders, method: str, *, seed: int) -> Iterator[PlannedRun]:
    """A trained model's own answers to the test problems, and how many are right."""
    split, model = policy_split(method), folders.model(method)
    some = Split(n_problems=comparison.test.n_problems, n=comparison.policies.n)
    yield from rollouts(comparison, folders, split, some, seed=seed, model=str(model), needs=(model,))
    yield PlannedRun(
        folder=folders.baseline(split), stage=partial(select, n=[1], seed=seed), inputs=(folders.graded(split),),
        log=f"policy-{method}",
    )  # fmt: skip


_OF_SOURCES = ("mix", "replace")
"""Settings of training that name other rollouts."""


def _sources(comparison: Comparison, settings: Mapping[str, Any]) -> list[str]:
    """The comparison's sources that settings of training name."""
    return [name for key in _OF_SOURCES for name in settings.get(key, {}) if name in comparison.sources]


def labelled(comparison: Comparison, folders: Folders, name: str, *, seed: int) -> PlannedRun:
    """Label the steps of the training rollouts."""
    labels = comparison.labels[name]
    options = dict(labels.options)
    needs = () if labels.model_of is None else (folders.model(labels.model_of),)
    if needs:
        options["model"] = str(needs[0])
    return PlannedRun(
        folder=folders.labels(name), stage=partial(label, labeler=labels.labeler, options=options, seed=seed),
        inputs=(folders.graded("train"),), needs=needs, alone=not needs, log=f"labels-{name}",
    )  # fmt: skip


def trained(comparison: Comparison, folders: Folders, name: str, *, seed: int) -> PlannedRun:
    """Train a method's model on the training rollouts, or on those with the step labels that it asks for.

    Raises:
        ConfigError: an unknown setting or a bad value.
    """
    method = comparison.methods[name]
    start = folders.model(method.start) if method.start else None
    merged = overlaid(comparison.training, method.train or {})
    drawn = {source: folders.graded(source_split(source)) for source in _sources(comparison, merged)}
    for key in _OF_SOURCES:
        if key in merged:
            merged[key] = {str(drawn.get(source, source)): share for source, share in merged[key].items()}
    settings = load_settings(options={**merged, "model": str(start or comparison.model), "seed": seed})
    return PlannedRun(
        folder=folders.model(name), stage=partial(train, **vars(replace(settings, cache=folders.logprobs))),
        inputs=(folders.labels(method.labels) if method.labels else folders.graded("train"),),
        needs=((start,) if start else ()) + tuple(drawn.values()), log=name,
    )  # fmt: skip


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training over others; their `trainer` tables are merged too."""
    trainer = {**below.get("trainer", {}), **above.get("trainer", {})}
    return {**below, **above, **({"trainer": trainer} if trainer else {})}


def scored(
    comparison: Comparison, folders: Folders, name: str, split: str, *, inputs: tuple[Path, ...] = ()
) -> PlannedRun:
    """Score a split's rollouts by a method; they are the graded ones, or other inputs."""
    method = comparison.methods[name]
    model = folders.model(method.of or name) if method.train is not None or method.of is not None else None
    rewards = [method.reward] if method.reward else []
    splitter = None
    if method.scorer is not None and method.model is not None:
        source = ScorerSource(source=method.model, scorer=method.scorer, reference=method.scorer_reference)
    elif model is not None:
        source = ScorerSource(source=str(model), load_reference=rewards != ["without-reference"])
    else:
        shared = filled(load_settings(options={**comparison.training, "model": comparison.model}))
        source = ScorerSource(source=comparison.model, scorer="untrained", beta=shared.settings.beta)
        rewards, splitter = [UNTRAINED], comparison.training.get("splitter")
    source = replace(source, cache=folders.logprobs)
    return PlannedRun(
        folder=folders.scores(name, split),
        stage=partial(score, prm=source, rewards=rewards, splitter=splitter, name=name),
        inputs=inputs or (folders.graded(split),), needs=(model,) if model else (), log=name,
    )  # fmt: skip


def chosen(
    comparison: Comparison, folders: Folders, name: str, split: str, *, n: Sequence[int], seed: int
) -> PlannedRun:
    """Choose among a split's responses by a method's scores."""
    method = comparison.methods[name]
    by = partial(select, n=n, aggregators=[method.aggregator], weighting=method.weighting, seed=seed)
    return PlannedRun(folder=folders.selection(name, split), stage=by, inputs=(folders.scores(name, split),), log=name)


def evaluate_steps(inputs: Sequence[Path], *, dev: Sequence[Path], aggregator: str, seed: int, out: Path) -> None:
    """Evaluate scores, at a threshold from dev where steps have scores, and it is known which are right."""
    row = _first_row(inputs[0])
    has_truth = row.get("step_scores") is not None and "first_error" in row
    evaluate(inputs, out=out, dev=dev if has_truth else (), aggregators=[aggregator], seed=seed)


def _may_have_truth(generator: Generator) -> bool:
    """Whether the first errors of its responses may be known, so that thresholds are fitted on dev."""
    return not generator.rollouts or any("first_error" in _first_row(Path(path)) for path in generator.rollouts)


def _first_row(path: Path) -> Mapping[str, Any]:
    return next((row for _, row in read_rows(path) if isinstance(row, Mapping)), {})


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
    for name, benchmark in comparison.benchmarks.items():
        fitted_on = benchmark.dev or "a share of its own problems"
        yield f"- first errors: {name} ({', '.join(benchmark.rollouts)}), thresholds fitted on {fitted_on}"
    yield f"- temperature {comparison.sampling.temperature:g}, seed {seed}"
    yield f"- {cost.seconds:,.0f} seconds from start to end"


def _amount(n_problems: int | None, n: int, rollouts: Sequence[str]) -> str:
    if rollouts:
        return f"rollouts of {', '.join(rollouts)}"
    return f"{n_problems:,} problems, {n} responses each" if n_problems else f"all problems, {n} responses each"


def _source(generator: Generator) -> str:
    return generator.model or f"rollouts of {', '.join(generator.rollouts)}"
