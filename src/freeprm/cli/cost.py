"""`freeprm cost`: what methods cost to develop and to use, beside each other and beside the paper's figures."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from freeprm.cli import output
from freeprm.cli.options import Json, read_names
from freeprm.errors import ConfigError


def cost(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="A method each: [label=]FOLDER[,FOLDER...] of its selection, scores or training; what these were made "
            "from is found through their manifests.",
            show_default=False,
        ),
    ] = None,
    convention: Annotated[
        str | None, typer.Option("--as", help="published or all-in; both if neither is named.", show_default=False)
    ] = None,
    charge: Annotated[
        str | None,
        typer.Option(
            help="Instead of --as: any of generation, annotation, reference, training, scoring, other, with commas."
        ),
    ] = None,
    no_attention: Annotated[
        bool, typer.Option("--no-attention", help="With --charge: leave out what grows with the context.")
    ] = False,
    against: Annotated[str | None, typer.Option(help="Label of the method that others are divided by.")] = None,
    best_of_n: Annotated[
        bool, typer.Option("--best-of-n", help="Also time generation, policy and reference of best-of-N.")
    ] = False,
    selector: Annotated[str, typer.Option(help="Whose accuracy is plotted against FLOPs.")] = "best_of_n/min",
    published: Annotated[bool, typer.Option("--published", help="The paper's figures, and what follows.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write cost.html and the figures to this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add up what methods cost, from the manifests of their runs: FLOPs by what they are for, seconds, GPU-seconds."""
    from freeprm.core.ledger import CONVENTIONS, charging
    from freeprm.experiments.bills import read_methods
    from freeprm.experiments.cost_report import cost_report
    from freeprm.report.table import print_tables

    if not runs and not published:
        raise ConfigError("give run folders, e.g. `freeprm cost ce=runs/ce dpo=runs/dpo`, or --published")
    if convention is not None and (convention not in CONVENTIONS or charge is not None):
        raise ConfigError(f"--as {convention}: expected {' or '.join(CONVENTIONS)}, and no --charge beside it")
    if no_attention and charge is None:
        raise ConfigError("--no-attention: goes with --charge; --as says by itself what is counted")
    ways = list(CONVENTIONS.values()) if convention is None else [CONVENTIONS[convention]]
    if charge is not None:
        ways = [charging(read_names(charge), attention=not no_attention)]
    methods = read_methods(runs or [], selector=selector)
    report = cost_report(methods, ways, against=against, measures_use=best_of_n, published=published)
    if out is not None:
        report.write(out, command=" ".join(["freeprm", *sys.argv[1:]]))
    if as_json:
        print(json.dumps(report.data(), ensure_ascii=False, allow_nan=False))
        return
    print_tables(output.console, report.tables)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if out is not None:
        output.console.print(f"written to {out}", soft_wrap=True)
