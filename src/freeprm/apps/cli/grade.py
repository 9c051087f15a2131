"""`freeprm grade`: right-or-wrong labels for rollouts."""

from pathlib import Path
from typing import Annotated

import typer

from freeprm.apps.cli import output
from freeprm.apps.cli.options import Inputs, Json, Map, Out, SkipBad, on_bad, read_map, read_names


def grade(
    inputs: Inputs,
    out: Out = Path("runs/graded"),
    regrade: Annotated[bool, typer.Option("--regrade", help="Replace the labels that rows bring.")] = False,
    extractors: Annotated[str | None, typer.Option(help="How answers are found; names with commas.")] = None,
    gold: Annotated[Path | None, typer.Option(help="Problems with problem_id and answer.", exists=True)] = None,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Find each response's answer and compare it with the gold answer."""
    from freeprm.core.answers import DEFAULT_EXTRACTORS
    from freeprm.stages.grading import grade as run

    with output.working():
        made = run(
            inputs,
            out=out,
            columns=read_map(columns),
            on_bad=on_bad(skip_bad),
            regrade=regrade,
            extractors=read_names(extractors) if extractors else DEFAULT_EXTRACTORS,
            gold=gold,
        )
    output.show(out=out, metrics=made.metrics, counts=made.counts, as_json=as_json)
