"""`freeprm compare`: reward models trained on the same rollouts, side by side with what they cost."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from freeprm.cli import output
from freeprm.cli.options import Json, Out
from freeprm.errors import ConfigError


def compare(
    config: Annotated[
        Path | None, typer.Argument(help="TOML or YAML; the packaged one without.", exists=True, show_default=False)
    ] = None,
    out: Out = Path("runs/compare"),
    tune: Annotated[
        bool, typer.Option("--tune", help="Instead: try settings for each method on a dev split of their own.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Methods made side by side, each in a process; the config's by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice; 0, or the config's with --tune.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="name=value over the config, e.g. train.n_problems=100.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train and score all methods on the same rollouts; print Table 1 beside their cost, and write compare.md."""
    from freeprm.experiments.comparison.settings import load_comparison

    comparison = load_comparison(config, assignments=assignments or ())
    n_workers = comparison.workers if workers is None else workers
    if n_workers < 1:
        raise ConfigError(f"--workers: is {n_workers}; expected 1 or more")
    command = " ".join(["freeprm", *sys.argv[1:]])
    with output.working():
        from freeprm.experiments.comparison.running import Compared
        from freeprm.experiments.comparison.running import compare as run
        from freeprm.experiments.comparison.tuning import Tuned
        from freeprm.experiments.comparison.tuning import tune as search
        from freeprm.report.table import print_tables

        made: Compared | Tuned
        if tune:
            own_seed = comparison.tuning.seed if seed is None else seed
            made = search(comparison, out=out, seed=own_seed, workers=n_workers, command=command)
        else:
            made = run(comparison, out=out, seed=seed or 0, workers=n_workers, command=command)
    if not as_json:
        print_tables(output.console, made.tables)
    output.show_parts(
        out=out, metrics=made.metrics if as_json else (), counts=made.counts, cost=made.cost, as_json=as_json
    )
