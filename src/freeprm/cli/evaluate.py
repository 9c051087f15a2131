"""`freeprm evaluate`: step scores against the true first error."""

from pathlib import Path
from typing import Annotated

import typer

from freeprm.cli import output
from freeprm.cli.options import (
    By,
    Inputs,
    Json,
    Map,
    Out,
    Scores,
    ScoresOptions,
    Seed,
    SkipBad,
    on_bad,
    read_map,
    read_names,
)


def evaluate(
    inputs: Inputs,
    out: Out = Path("runs/evaluation"),
    dev: Annotated[
        list[Path] | None, typer.Option(help="Scored rows of other problems, to fit thresholds on.", exists=True)
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="The threshold itself, for all scorers.")] = None,
    dev_share: Annotated[float, typer.Option(help="Without either: share of the problems to fit on.")] = 0.3,
    aggregator: Annotated[str, typer.Option(help="For the response AUC; several with commas.")] = "min",
    by: By = None,
    scores: Scores = None,
    scores_options: ScoresOptions = None,
    seed: Seed = 0,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """ProcessBench F1, first-error accuracy, step and response AUC, the latter over all and inside problems."""
    from freeprm.io.config import read_assignments
    from freeprm.stages.evaluation import evaluate as run

    with output.working():
        made = run(
            inputs,
            out=out,
            dev=dev or (),
            threshold=threshold,
            dev_share=dev_share,
            columns=read_map(columns),
            on_bad=on_bad(skip_bad),
            scores=scores or (),
            score_options=read_assignments(scores_options or ()),
            aggregators=read_names(aggregator),
            by=by or (),
            seed=seed,
        )
    output.show(out=out, metrics=made.metrics, counts=made.counts, as_json=as_json)
