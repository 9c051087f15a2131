"""`freeprm label`: labels for the steps of graded rollouts."""

from pathlib import Path
from typing import Annotated

import typer

from freeprm.cli import output
from freeprm.cli.options import Inputs, Json, Map, Out, Seed, SkipBad, on_bad, read_map


def label(
    inputs: Inputs,
    labeler: Annotated[str, typer.Option(help="monte_carlo, autopsv, or package.module:Name.")] = "monte_carlo",
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value, a field of the labeler: model=solver:base, n=8, threshold=-0.5."),
    ] = None,
    out: Out = Path("runs/labels"),
    splitter: Annotated[
        str | None, typer.Option(help="auto, step_markers, lines, blank_lines or sentences; rows' own steps go first.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Labels of the same responses whose values are taken for the truth.", exists=True),
    ] = None,
    columns: Map = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Label every step, by completions of its prefix or by a verifier; the same command goes on where it stopped."""
    from freeprm.io.config import read_assignments

    with output.working():
        from freeprm.stages.labeling import label as run

        made = run(
            inputs,
            labeler=labeler,
            out=out,
            options=read_assignments(options or ()),
            splitter=splitter,
            reference=reference,
            columns=read_map(columns),
            on_bad=on_bad(skip_bad),
            seed=seed,
        )
    output.show(out=out, metrics=made.metrics, counts=made.counts, cost=made.cost, as_json=as_json)
