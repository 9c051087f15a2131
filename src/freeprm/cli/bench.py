"""`freeprm bench`: how fast this is, beside others, on this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def bench(
    benchmarks: Annotated[
        list[str] | None, typer.Argument(help="scoring, training, ...; all if none is named.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: all benchmarks within 3 minutes.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write rows.json, README.md and the plots to this folder.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch; by default as many as it takes by itself.")] = None,
) -> None:
    """Measure speed and memory beside the released scorer's way, plain transformers, TRL and matrix products."""
    from freeprm.apps.benchmarks.plots import growth_plot
    from freeprm.apps.benchmarks.running import run, write_rows
    from freeprm.apps.benchmarks.tables import markdown, number, terminal_table
    from freeprm.bench.base import Row
    from freeprm.cli import output

    files = [file for file in (json_file, out and out / "rows.json") if file]

    def finished(rows: list[Row]) -> None:
        for file in files:
            write_rows(rows, file)
        row = rows[-1]
        print(f"{row.name}: {number(row.ours) or '-'} {row.unit}, ratio {number(row.ratio) or '-'}", file=sys.stderr)

    with output.working():
        command = " ".join(["freeprm", *sys.argv[1:]])
        rows = run(benchmarks or (), quick=quick, threads=threads, command=command, finished=finished)
        if out:
            growth_plot(rows, out / "growth.svg")
            (out / "README.md").write_text(markdown(rows), encoding="utf-8")
    output.console.print(terminal_table(rows))
    for file in files:
        output.console.print(f"written to {file}", soft_wrap=True)
