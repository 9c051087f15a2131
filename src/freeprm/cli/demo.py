"""`freeprm demo`: the whole loop on the embedded world, in minutes."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from freeprm.cli.options import Json, Out, Seed


def demo(
    out: Out = Path("runs/demo"),
    objectives: Annotated[str, typer.Option(help="ce, or several with commas, or all.")] = "ce",
    solver: Annotated[str, typer.Option(help="The shipped generator: small, base or large.")] = "base",
    train_problems: Annotated[int, typer.Option(help="Problems to train on, 8 rollouts each.")] = 1000,
    test_problems: Annotated[int, typer.Option(help="Held-out problems.")] = 200,
    test_samples: Annotated[int, typer.Option(help="Rollouts a held-out problem.")] = 64,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Sample, grade, train, score, select and evaluate on the embedded world; then write report.html."""
    from freeprm.cli import output
    from freeprm.experiments.demo import FOUR, DemoSettings
    from freeprm.experiments.demo import demo as run

    settings = DemoSettings(
        solver=solver,
        objectives=FOUR if objectives == "all" else tuple(objectives.split(",")),
        train_problems=train_problems,
        test_problems=test_problems,
        test_samples=test_samples,
        seed=seed,
    )
    with output.working():
        made = run(out=out, settings=settings, command=" ".join(["freeprm", *sys.argv[1:]]))
    shown = made.metrics if as_json else [metric for metric in made.metrics if metric.group is None]
    output.show_parts(out=made.report, metrics=shown, cost=made.cost, as_json=as_json)
