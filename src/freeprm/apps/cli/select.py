"""`freeprm select`: best-of-N, votes and their accuracy."""

from pathlib import Path
from typing import Annotated

import typer

from freeprm.apps.cli import output
from freeprm.apps.cli.options import (
    By,
    Inputs,
    Json,
    Map,
    Out,
    Seed,
    SkipBad,
    on_bad,
    read_map,
    read_names,
    read_numbers,
)


def select(
    inputs: Inputs,
    out: Out = Path("runs/selection"),
    n: Annotated[str | None, typer.Option("--n", help="Samples to choose among, e.g. 1,4,16,64.")] = None,
    aggregator: Annotated[str, typer.Option(help="min, sum, mean, last, prod, max; several with commas.")] = "min",
    weighting: Annotated[str, typer.Option(help="Score to vote weight: sigmoid, exp, raw, ...")] = "sigmoid",
    weight_scale: Annotated[float, typer.Option(help="Scores are multiplied by this before they are weights.")] = 1.0,
    first: Annotated[bool, typer.Option("--first", help="The first n samples instead of random subsets.")] = False,
    by: By = None,
    seed: Seed = 0,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Choose one response or answer a problem, and say how often that is right."""
    from freeprm.stages.selection import select as run

    with output.working():
        made = run(
            inputs,
            out=out,
            columns=read_map(columns),
            on_bad=on_bad(skip_bad),
            n=read_numbers(n),
            aggregators=read_names(aggregator),
            weighting=weighting,
            weight_scale=weight_scale,
            subsets="first" if first else "resample",
            by=by or (),
            seed=seed,
        )
    output.show(out=out, metrics=made.metrics, counts=made.counts, as_json=as_json)
