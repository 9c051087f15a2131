"""The whole loop on the embedded world: sample, grade, train, score, select, evaluate, report.

Every stage keeps its run folder under one folder, so that the same command goes on where it was
interrupted, and each can be looked at, or run again by hand with the command of the same name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from freeprm.core.answers import canonical
from freeprm.io.manifest import read_cost
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder, read_manifest, read_metrics
from freeprm.report.metrics import cost_table
from freeprm.report.page import (
    SOLUTION_NOTE,
    Curve,
    Page,
    Section,
    SolutionView,
    StepView,
    claim_over,
    metric_sections,
    render,
    settings_table,
    training_figures,
)
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.evaluation import evaluate
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.stages.selection import select
from freeprm.stages.training import train
from freeprm.training.settings import TrainSettings, load_settings
from freeprm.types import Cost, Group, Metric, Rollout, group_rollouts

FOUR = ("ce", "dpo", "kto", "nca")
"""The paper's objectives: what `all` stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Size of the demo."""

    solver: str = "base"
    """Which shipped solver generates, and is the reference."""
    objectives: tuple[str, ...] = ("ce",)
    train_problems: int = 1000
    train_samples: int = 8
    """Rollouts a training problem, as in the paper."""
    dev_problems: int = 100
    """For the thresholds of step-level evaluation; as many rollouts each as in training."""
    test_problems: int = 200
    test_samples: int = 64
    temperature: float = 0.8
    seed: int = 0
    """Of problems, samples and training: another seed is another experiment."""


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
        report.write_text(render(demo_page(made, settings, command=command)), encoding="utf-8")
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


SHOWN_PROBLEMS = 8
DISCLOSURE = (
    "The problems are made up by a program that can check every step, and the solver learnt from simulated students "
    "who misread inverse relations (“Ivy has 3 times as many books as Kim”, where Kim is asked for) more often than "
    "not. Its most likely answer is therefore often wrong by design: majority vote repeats the misconception, and "
    "only a scorer that has seen which answers were right can choose against it. The size of the gain says something "
    "about this world, not about large models on real mathematics. Hyper-parameters were chosen on the dev split."
)
CLAIMED = "with-reference"
SELECTOR = "weighted_vote/min"
_CURVES = {
    "loss": ("loss", "{objective}"),
    "sign_accuracy": ("share with the right sign of r(y)", "{objective}"),
    "reward_right": ("mean reward", "{objective}, right"),
    "reward_wrong": ("mean reward", "{objective}, wrong"),
    "kl_to_reference": ("KL to the reference, nats", "{objective}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """What the stages gave the report."""

    metrics: Sequence[Metric]
    costs: Mapping[str, Cost]
    logs: Mapping[str, Sequence[Mapping[str, float]]]
    """Training log by objective."""
    scored: Path
    """Score folder of the first objective on the test problems."""


def demo_page(made: DemoRun, settings: DemoSettings, *, command: str) -> Page:
    """The page of a finished demo."""
    first = settings.objectives[0]
    claim = claim_over(
        made.metrics,
        scorer=f"{first} {CLAIMED}",
        selector=SELECTOR,
        n=settings.test_samples,
        baseline="reference-only",
    )
    described = {
        "generator and reference": f"solver:{settings.solver}",
        "objectives": ", ".join(settings.objectives),
        "training": f"{settings.train_problems:,} problems, {settings.train_samples} rollouts each",
        "dev, for thresholds": f"{settings.dev_problems:,} problems, {settings.train_samples} rollouts each",
        "test": f"{settings.test_problems:,} problems, {settings.test_samples} rollouts each",
        "temperature": str(settings.temperature),
        "seed": str(settings.seed),
        "score of a response": "the lowest of its step rewards",
        "vote weight": "sigmoid of the score",
    }
    return Page(
        title="Process rewards from right-or-wrong answers",
        command=command,
        disclosure=DISCLOSURE,
        claim=claim,
        sections=(
            *metric_sections(made.metrics),
            Section(title="Training", figures=training_figures(list(_curves(made.logs)))),
            Section(
                title="Solutions",
                note=SOLUTION_NOTE,
                solutions=tuple(_solutions(made.scored / f"{first}-{CLAIMED}.jsonl")),
            ),
            Section(title="Cost", tables=(cost_table(made.costs),)),
            Section(title="Settings", tables=(settings_table(described),)),
        ),
    )


def _curves(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Iterator[Curve]:
    for objective, log in logs.items():
        for key, (panel, name) in _CURVES.items():
            points = tuple((entry["step"], entry[key]) for entry in log if key in entry)
            if points:
                yield Curve(panel=panel, name=name.format(objective=objective), points=points)


def _solutions(scored: Path) -> Iterator[SolutionView]:
    """For some problems that majority vote gets wrong, the majority's solution and the one with the highest score."""
    shown = 0
    for group in group_rollouts(read_rollouts([scored]).rollouts):
        voted = _most_common(group)
        best = max(group.rollouts, key=lambda rollout: min(rollout.step_scores or (float("-inf"),)))
        if voted is None or voted.correct or not best.correct:
            continue
        yield _view(voted, "the majority's answer")
        yield _view(best, f"chosen by best-of-{len(group.rollouts)}")
        shown += 1
        if shown == SHOWN_PROBLEMS:
            return


def _most_common(group: Group) -> Rollout | None:
    """The first response with the most common answer."""
    first: dict[str, Rollout] = {}
    votes: dict[str, int] = {}
    for rollout in group.rollouts:
        key = canonical(rollout.pred)
        if key is not None:
            first.setdefault(key, rollout)
            votes[key] = votes.get(key, 0) + 1
    return first[max(votes, key=lambda key: votes[key])] if votes else None


def _view(rollout: Rollout, label: str) -> SolutionView:
    extra: Row = dict(rollout.extra)
    truth = extra.get("step_labels") or [None] * len(rollout.step_scores or ())
    steps = zip(extra["step_spans"], rollout.step_scores or (), truth, strict=True)
    return SolutionView(
        problem=str(rollout.prompt),
        gold=rollout.answer,
        answer=rollout.pred,
        correct=rollout.correct,
        label=label,
        scorer=rollout.scorer or "",
        steps=tuple(
            StepView(text=rollout.response[start:stop], reward=reward, right=right)
            for (start, stop), reward, right in steps
        ),
        first_error=extra.get("first_error"),
    )
