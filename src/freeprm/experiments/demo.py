"""The whole loop on the embedded world: sample, grade, train, score, select, evaluate, report.

Every stage keeps its run folder under one folder, so that the same command goes on where it was
interrupted, and each can be looked at, or run again by hand with the command of the same name.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from freeprm.experiments.demo_report import DemoRun, demo_report
from freeprm.experiments.demo_settings import DemoSettings
from freeprm.io.costs import read_cost
from freeprm.io.runs import RunFolder, read_manifest, read_metrics
from freeprm.report.page import render
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.evaluation import evaluate
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.stages.selection import select
from freeprm.stages.training import train
from freeprm.training.settings import TrainSettings, load_settings
from freeprm.types import Cost, Metric

PRESET = "embedded"
MAX_NEW_TOKENS = 200
"""The longest right solution of default difficulty takes about 130."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo made."""

    folder: Path
    report: Path
    """A self-contained page."""
    metrics: list[Metric]
    cost: Cost
    """Of all stages together, and the seconds from start to end."""


def demo(*, out: Path, settings: DemoSettings, command: str) -> Demo:
    """Show a process reward model come out of right-or-wrong answers, and measure it on held-out problems.

    Args:
        out: the folder of all run folders.
        settings: size, objectives and seed.
        command: the command line that makes this run, for the report.
    """
    report = out / "report.html"
    with RunFolder(out, stage="demo", settings=asdict(settings)) as run:
        if run.complete and report.exists():
            cost = read_cost((read_manifest(out) or {})["cost"])
            return Demo(folder=out, report=report, metrics=read_metrics(out), cost=cost)
        costs: dict[str, Cost] = {}
        graded = {split: _rollouts(split, out, settings, costs) for split in ("train", "dev", "test")}
        scored: dict[str, list[Path]] = {"dev": [], "test": []}
        logs = {}
        for objective in settings.objectives:
            folder = out / f"prm-{objective}"
            trained = train(
                [graded["train"]], settings=_train_settings(objective, settings), out=folder, cache=out / "reference"
            )
            costs[f"train {objective}"], logs[objective] = trained.cost, trained.log
            prm = ImplicitPRM.from_pretrained(folder)
            for split, folders in scored.items():
                folders.append(_scores(prm, objective, split, graded[split], out, settings, costs))
        sizes = [n for n in (1, 4, 16, 64) if n < settings.test_samples] + [settings.test_samples]
        selection = select(scored["test"], out=out / "selection", n=sizes, by=["level"], seed=settings.seed)
        evaluation = evaluate(scored["test"], out=out / "evaluation", dev=scored["dev"], seed=settings.seed)
        metrics = [*selection.metrics, *evaluation.metrics]
        made = DemoRun(metrics=metrics, costs=costs, logs=logs, scored=scored["test"][0])
        report.write_text(render(demo_report(made, settings, command=command)), encoding="utf-8")
        run.write_metrics(metrics)
        cost = run.finish(cost=sum(costs.values(), Cost()), counts=selection.counts)
    return Demo(folder=out, report=report, metrics=metrics, cost=cost)


def _rollouts(split: str, out: Path, settings: DemoSettings, costs: dict[str, Cost]) -> Path:
    """Sampled and graded rollouts of one split."""
    n_problems, n = {
        "train": (settings.train_problems, settings.train_samples),
        "dev": (settings.dev_problems, settings.train_samples),
        "test": (settings.test_problems, settings.test_samples),
    }[split]
    sampled = sample(
        "arithmetic",
        model=f"solver:{settings.solver}",
        out=out / f"rollouts-{split}",
        split=split,
        n_problems=n_problems,
        n=n,
        temperature=settings.temperature,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=settings.seed,
        problem_seed=settings.seed,
        logprobs=True,  # the solver is the reference too, which then costs nothing
    )
    graded = grade([sampled.folder], out=out / f"graded-{split}")
    costs[f"sample {split}"] = sampled.cost
    return graded.folder


def _train_settings(objective: str, settings: DemoSettings) -> TrainSettings:
    return load_settings(
        options={"model": f"solver:{settings.solver}", "objective": objective, "seed": settings.seed}, preset=PRESET
    )


def _scores(
    prm: ImplicitPRM,
    objective: str,
    split: str,
    rollouts: Path,
    out: Path,
    settings: DemoSettings,
    costs: dict[str, Cost],
) -> Path:
    """Rollouts scored with and without the reference; by the reference alone only the first time."""
    rewards = ["with-reference", "without-reference"]
    if objective == settings.objectives[0]:
        rewards.append("reference-only")
    scored = score([rollouts], prm=prm, out=out / f"scores-{split}-{objective}", rewards=rewards, name=objective)
    costs[f"score {split} {objective}"] = scored.cost
    return scored.folder
