"""The whole loop on the embedded world: sample, grade, train, score, select, evaluate, report.

Every stage has a run folder below one folder, so that the same command resumes, and each stage can be inspected, or
run again with the command of the same name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from freeprm.core.answers import canonical
from freeprm.core.voting import sigmoid
from freeprm.experiments.graph import PlannedRun, make_runs
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import Row, write_text
from freeprm.io.runs import RunFolder
from freeprm.models.loading import LoadOptions
from freeprm.report.metrics import cost_table
from freeprm.report.page import (
    Curve,
    Page,
    Section,
    claim_over,
    metric_sections,
    render,
    settings_table,
    training_figures,
)
from freeprm.report.solutions import NOTE as SOLUTIONS_NOTE
from freeprm.report.solutions import SolutionView, StepView
from freeprm.scorers.base import ScorerSource
from freeprm.settings import DemoSettings
from freeprm.stages.base import RunResult
from freeprm.stages.evaluation import evaluate
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.stages.selection import select
from freeprm.stages.training import train
from freeprm.training.settings import load_settings
from freeprm.types import Cost, Group, Metric, Rollout, group_rollouts

FOUR = ("ce", "dpo", "kto", "nca")
"""The paper's objectives, for `all`."""
REPORT = "report.html"
"""The page, in the demo's folder."""
PRESET = "embedded"
MAX_NEW_TOKENS = 200
"""The longest right solution of default difficulty takes about 130."""
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


def demo(*, out: Path, settings: DemoSettings, command: str) -> RunResult:
    """Train a process reward model on right-or-wrong answers, and measure it on held-out problems.

    Args:
        out: parent of all run folders and the page.
        settings: size, objectives and seed.
        command: the command line, for the page.
    """
    with RunFolder(out, stage="demo", settings=settings.deciding()) as run:
        if not run.complete or not (out / REPORT).exists():
            runs = list(planned(out, settings))
            make_runs(runs, out=out, description="demo", ended=run.save_time)
            selection = RunResult.load(out / "selection")
            metrics = [*selection.metrics, *RunResult.load(out / "evaluation").metrics]
            costs = _costs(runs)
            page = demo_page(out, settings, metrics=metrics, costs=costs, command=command)
            write_text(out / REPORT, render(page))
            run.write_metrics(metrics)
            run.finish(cost=sum(costs.values(), Cost()), counts=selection.counts)
    return RunResult.load(out)


def planned(out: Path, settings: DemoSettings) -> Iterator[PlannedRun]:
    """The runs of a demo; scores by the reference alone are made with those of the first objective."""
    sizes = {
        "train": (settings.train_problems, settings.train_samples),
        "dev": (settings.dev_problems, settings.train_samples),
        "test": (settings.test_problems, settings.test_samples),
    }
    model, seed = f"solver:{settings.solver}", settings.seed
    for split, (n_problems, n) in sizes.items():
        draw = partial(
            sample, "arithmetic", model=model, split=split, n_problems=n_problems, n=n,
            temperature=settings.temperature, max_new_tokens=MAX_NEW_TOKENS, seed=seed, problem_seed=seed,
            logprobs=True,  # the solver is also the reference, which then need not be run
        )  # fmt: skip
        yield PlannedRun(folder=out / f"rollouts-{split}", stage=draw)
        yield PlannedRun(folder=out / f"graded-{split}", stage=grade, inputs=(out / f"rollouts-{split}",))
    scores: dict[str, tuple[Path, ...]] = {"dev": (), "test": ()}
    for objective in settings.objectives:
        prm = out / f"prm-{objective}"
        training = load_settings(options={"model": model, "objective": objective, "seed": seed}, preset=PRESET)
        fit = partial(train, **vars(replace(training, cache=out / "reference")))
        yield PlannedRun(folder=prm, stage=fit, inputs=(out / "graded-train",))
        rewards = ["with-reference", "without-reference"]
        rewards += ["reference-only"] if objective == settings.objectives[0] else []
        source = ScorerSource(source=str(prm), options=LoadOptions(dtype="float32"))
        for split in scores:
            folder = out / f"scores-{split}-{objective}"
            by = partial(score, prm=source, rewards=rewards, name=objective)
            yield PlannedRun(folder=folder, stage=by, inputs=(out / f"graded-{split}",), needs=(prm,))
            scores[split] += (folder,)
    ns = [n for n in (1, 4, 16, 64) if n < settings.test_samples] + [settings.test_samples]
    choose = partial(select, n=ns, by=["level"], seed=seed)
    yield PlannedRun(folder=out / "selection", stage=choose, inputs=scores["test"])
    measure = partial(evaluate, dev=list(scores["dev"]), seed=seed)
    yield PlannedRun(folder=out / "evaluation", stage=measure, inputs=scores["test"], needs=scores["dev"])


def _costs(runs: Sequence[PlannedRun]) -> dict[str, Cost]:
    """Costs by readable name: `train ce` for prm-ce."""
    stages = {"rollouts": "sample", "prm": "train", "scores": "score"}
    costs = {}
    for folder in (run.folder for run in runs):
        kind, *of = folder.name.split("-")
        if kind in stages:
            costs[" ".join([stages[kind], *of])] = RunResult.load(folder).cost
    return costs


def demo_page(
    out: Path, settings: DemoSettings, *, metrics: Sequence[Metric], costs: Mapping[str, Cost], command: str
) -> Page:
    """The page of a finished demo."""
    first = settings.objectives[0]
    claim = claim_over(
        metrics,
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
            *metric_sections(metrics),
            Section(title="Training", figures=training_figures(list(_curves(out, settings.objectives)))),
            Section(
                title="Solutions",
                note=SOLUTIONS_NOTE,
                solutions=tuple(_solutions(out / f"scores-test-{first}" / f"{first}-{CLAIMED}.jsonl")),
            ),
            Section(title="Cost", tables=(cost_table(costs),)),
            Section(title="Settings", tables=(settings_table(described),)),
        ),
    )


def _curves(out: Path, objectives: Sequence[str]) -> Iterator[Curve]:
    for objective in objectives:
        log = RunResult.load(out / f"prm-{objective}").log
        for key, (panel, name) in _CURVES.items():
            points = tuple((entry["step"], entry[key]) for entry in log if key in entry)
            if points:
                yield Curve(panel=panel, name=name.format(objective=objective), points=points)


def _solutions(scored: Path) -> Iterator[SolutionView]:
    """For some problems with a wrong majority vote, the majority's solution and the one with the highest score."""
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
    scores = rollout.step_scores or ()
    p_correct = sigmoid(np.cumsum(scores)).tolist()
    steps = zip(extra["step_spans"], scores, truth, p_correct, strict=True)
    return SolutionView(
        problem=str(rollout.prompt),
        gold=rollout.answer,
        answer=rollout.pred,
        correct=rollout.correct,
        label=label,
        scorer=rollout.scorer or "",
        steps=tuple(
            StepView(text=rollout.response[start:stop], reward=reward, right=right, p_correct=p)
            for (start, stop), reward, right, p in steps
        ),
        first_error=extra.get("first_error"),
    )
