"""`freeprm verify`: the theory, checked by enumeration."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from freeprm.cli import output
from freeprm.cli.options import Json, Seed


def verify(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder for metrics.json.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Check Propositions 3.1 and 3.2 exactly, for a policy of every objective."""
    with output.working():
        from freeprm.stages.verifying import verify as run

        checks = run(seed=seed, out=out)
    if as_json:
        rows = [{**asdict(check), "passed": check.passed} for check in checks]
        print(json.dumps({"out": str(out) if out else None, "checks": rows}))
    else:
        table = Table("check", "", "measured", "tolerance", "what", box=None, header_style="bold")
        for check in checks:
            mark = "[green]holds[/green]" if check.passed else "[red]FAILS[/red]"
            table.add_row(check.name, mark, f"{check.measured:.2e}", f"{check.tolerance:.0e}", Text(check.detail))
        output.console.print(table)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
