"""`freeprm convert`: other projects' data in and out; and the advice to use it, where a stage is given such data."""

from pathlib import Path
from typing import Annotated

import typer

from freeprm.cli import output
from freeprm.cli.options import Inputs, Json, Scores, ScoresOptions, SkipBad, on_bad, read_map
from freeprm.errors import FreePRMError, RecordError


def convert(
    inputs: Inputs,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .jsonl, .json, .csv or .parquet file, or a run folder.")
    ] = Path("runs/converted"),
    source: Annotated[
        str | None, typer.Option("--from", help="Format of the inputs; told from the first row if not given.")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="Format to write; rows are our own.")] = "rows",
    read_options: Annotated[
        list[str] | None, typer.Option("--read-option", help="name=value, a field of the format of the inputs.")
    ] = None,
    write_options: Annotated[
        list[str] | None, typer.Option("--option", help="name=value, a field of the format to write.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--map", help="format's=theirs: the rows' name for a column of the format.")
    ] = None,
    scores: Scores = None,
    scores_options: ScoresOptions = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Read rows of any format, write them in another; docs/data.md shows each."""
    from freeprm.io.config import read_assignments

    with output.working():
        from freeprm.stages.converting import convert as run

        made = run(
            inputs,
            out=out,
            source=source,
            to=to,
            columns=read_map(columns),
            on_bad=on_bad(skip_bad),
            read_options=read_assignments(read_options or ()),
            write_options=read_assignments(write_options or ()),
            scores=scores or (),
            score_options=read_assignments(scores_options or ()),
        )
    output.show(out=out, counts=made.counts, as_json=as_json)


def advice(error: FreePRMError) -> str:
    """What to add to the error of a row that lacks our columns: that convert reads it, if it does."""
    if not isinstance(error, RecordError) or error.row is None:
        return ""
    from freeprm.formats._reading import recognise
    from freeprm.io.rollouts import OURS

    try:
        found = [name for name in recognise(dict(error.row)) if name != OURS]
    except FreePRMError:  # of a plug-in: not what went wrong here
        return ""
    if not found:
        return ""
    return f" The row is {' or '.join(found)}: `freeprm convert INPUT --out rows.jsonl` makes it one of ours."
