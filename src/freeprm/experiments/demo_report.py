"""What the demo's page says: its disclosure, its claim, its curves, and the solutions that it shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from freeprm.core.answers import canonical
from freeprm.experiments.demo_settings import DemoSettings
from freeprm.io.formats import read_rollouts
from freeprm.io.jsonl import Row
from freeprm.report.claims import claim_over
from freeprm.report.content import Curve, Report, SolutionView, StepView
from freeprm.types import Cost, Group, Metric, Rollout, group_rollouts

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


def demo_report(made: DemoRun, settings: DemoSettings, *, command: str) -> Report:
    """The report of a finished demo."""
    first = settings.objectives[0]
    claim = claim_over(
        made.metrics,
        scorer=f"{first} {CLAIMED}",
        selector=SELECTOR,
        n=settings.test_samples,
        baseline="reference-only",
    )
    return Report(
        title="Process rewards from right-or-wrong answers",
        command=command,
        disclosure=DISCLOSURE,
        settings={
            "generator and reference": f"solver:{settings.solver}",
            "objectives": ", ".join(settings.objectives),
            "training": f"{settings.train_problems:,} problems, {settings.train_samples} rollouts each",
            "dev, for thresholds": f"{settings.dev_problems:,} problems, {settings.train_samples} rollouts each",
            "test": f"{settings.test_problems:,} problems, {settings.test_samples} rollouts each",
            "temperature": str(settings.temperature),
            "seed": str(settings.seed),
            "score of a response": "the lowest of its step rewards",
            "vote weight": "sigmoid of the score",
        },
        metrics=tuple(made.metrics),
        claim=claim,
        curves=tuple(_curves(made.logs)),
        costs=made.costs,
        solutions=tuple(_solutions(made.scored / f"{first}-{CLAIMED}.jsonl")),
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
