"""Commands that are no stage: demo, comparison, costs, the server, and the check of the theory."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from freeprm.cli import output
from freeprm.cli.builder import Command, Invocation
from freeprm.cli.values import read_names
from freeprm.errors import ConfigError, needs_extra
from freeprm.settings import DemoSettings, Flag, RunSettings, ServeSettings, VerifySettings


@dataclass(frozen=True, kw_only=True)
class CompareFlags(RunSettings):
    """Train and score all methods on the same rollouts; print Table 1 beside their cost, and write compare.md."""

    tune: bool = False
    """Instead: try settings for each method on a dev split of their own."""
    workers: int | None = None
    """Methods made side by side, each in a process; the config's by default."""
    seed: int | None = None
    """Of every random choice; 0, or the config's with --tune."""


@dataclass(frozen=True, kw_only=True)
class ReproduceFlags(RunSettings):
    """Re-test the paper's claims: make the runs that they need, and write report.html with what holds and what not."""

    preset: str = "world"
    """What they are tested on: world, small (a real model, GSM8K), paper (Llama-3.1-8B, a cluster), or a file."""
    only: Annotated[Sequence[str], Flag(commas=True)] = ()
    """Claims by the beginnings of their names, with commas, e.g. f5,t1; all by default."""
    seeds: int = 1
    """How many, each with problems, samples and training of its own."""
    first_seed: int = 0
    """The others follow it."""
    quick: bool = False
    """Fewer problems, and wider intervals."""
    dry_run: bool = False
    """Print the runs with their FLOPs and time, and make none."""
    workers: int | None = None
    """Runs made side by side, each in a process; the preset's by default."""


@dataclass(frozen=True, kw_only=True)
class CostFlags(RunSettings):
    """Add up what methods cost, from the manifests of their runs: FLOPs by what they are for, seconds, GPU-seconds."""

    convention: Annotated[str | None, Flag(name="--as")] = None
    """published or all-in; both if neither is named."""
    charge: str | None = None
    """Instead of --as: any of generation, annotation, reference, training, scoring, other, with commas."""
    no_attention: bool = False
    """With --charge: leave out what grows with the context."""
    against: str | None = None
    """Label of the method that others are divided by."""
    best_of_n: bool = False
    """Also time generation, policy and reference of best-of-N."""
    selector: str = "best_of_n/min"
    """Whose accuracy is plotted against FLOPs."""
    published: bool = False
    """The paper's figures, and what follows."""


def _command() -> str:
    """The command line, for reports."""
    return " ".join(["freeprm", *sys.argv[1:]])


def _demo(call: Invocation) -> None:
    from freeprm.experiments.demo import FOUR, REPORT, demo

    flags = call.settings(DemoSettings)
    objectives = FOUR if list(flags.objectives) == ["all"] else tuple(flags.objectives)
    settings = DemoSettings(**{**flags.deciding(), "objectives": objectives})
    with output.working():
        made = demo(out=Path(flags.out or ""), settings=settings, command=_command())
    shown = made.metrics if call.as_json else [metric for metric in made.metrics if metric.group is None]
    output.show_parts(out=made.folder / REPORT, metrics=shown, cost=made.cost, as_json=call.as_json)


def _compare(call: Invocation) -> None:
    from freeprm.experiments.comparison.settings import PACKAGED, load_comparison

    if call.inputs and call.config:
        raise ConfigError(f"--config {call.config}: the comparison is {call.inputs} already; give one of the two")
    comparison = load_comparison(call.inputs or call.config or PACKAGED, assignments=call.assignments)
    flags = CompareFlags(**{**call.layers["default"], **call.layers["option"]})
    out, workers = Path(flags.out or ""), comparison.workers if flags.workers is None else flags.workers
    if workers < 1:
        raise ConfigError(f"--workers: is {workers}; expected 1 or more")
    with output.working():
        from freeprm.experiments.comparison.running import Compared, compare
        from freeprm.experiments.comparison.tuning import tune
        from freeprm.report.table import print_tables

        made: Compared
        if flags.tune:
            seed = comparison.tuning.seed if flags.seed is None else flags.seed
            made = tune(comparison, out=out, seed=seed, workers=workers, command=_command())
        else:
            made = compare(comparison, out=out, seed=flags.seed or 0, workers=workers, command=_command())
    if not call.as_json:
        print_tables(output.console, made.tables)
    metrics = made.metrics if call.as_json else ()
    output.show_parts(out=out, metrics=metrics, counts=made.counts, cost=made.cost, as_json=call.as_json)


def _reproduce(call: Invocation) -> None:
    from freeprm.experiments.reproduction.claims import load_claims
    from freeprm.experiments.reproduction.presets import load_preset

    if call.config is not None:
        raise ConfigError(f"--config {call.config}: give the file as --preset")
    flags = ReproduceFlags(**{**call.layers["default"], **call.layers["option"]})
    claims = load_claims(flags.only)
    preset = load_preset(flags.preset, quick=flags.quick, assignments=call.assignments)
    out = Path(flags.out or f"runs/reproduce-{preset.name}{'-quick' if flags.quick else ''}")
    workers = preset.comparison.workers if flags.workers is None else flags.workers
    for name, value in {"workers": workers, "seeds": flags.seeds}.items():
        if value < 1:
            raise ConfigError(f"--{name}: is {value}; expected 1 or more")
    seeds = range(flags.first_seed, flags.first_seed + flags.seeds)
    with output.working():
        from freeprm.experiments.reproduction.forecast import forecast
        from freeprm.experiments.reproduction.report import short_table
        from freeprm.experiments.reproduction.running import reproduce
        from freeprm.report.table import print_tables

        if flags.dry_run:
            print_tables(output.console, [forecast(preset, claims, out=out, seeds=seeds)])
            return
        made = reproduce(preset, claims, out=out, seeds=seeds, workers=workers, command=_command())
    if not call.as_json:
        print_tables(output.console, [short_table(made.claims)])
    metrics = made.metrics if call.as_json else ()
    output.show_parts(
        out=out / "report.html", metrics=metrics, counts=made.counts, cost=made.cost, as_json=call.as_json
    )


def _cost(call: Invocation) -> None:
    from freeprm.core.ledger import CONVENTIONS, charging
    from freeprm.experiments.bills import read_methods
    from freeprm.experiments.cost_report import cost_report
    from freeprm.report.table import print_tables

    runs, flags = call.inputs or [], call.settings(CostFlags)
    if not runs and not flags.published:
        raise ConfigError("give run folders, e.g. `freeprm cost ce=runs/ce dpo=runs/dpo`, or --published")
    if flags.convention is not None and (flags.convention not in CONVENTIONS or flags.charge is not None):
        raise ConfigError(f"--as {flags.convention}: expected {' or '.join(CONVENTIONS)}, and no --charge beside it")
    if flags.no_attention and flags.charge is None:
        raise ConfigError("--no-attention: goes with --charge; --as says by itself what is counted")
    ways = list(CONVENTIONS.values()) if flags.convention is None else [CONVENTIONS[flags.convention]]
    if flags.charge is not None:
        ways = [charging(read_names(flags.charge), attention=not flags.no_attention)]
    methods = read_methods(runs, selector=flags.selector)
    report = cost_report(
        methods, ways, against=flags.against, measures_use=flags.best_of_n, published=flags.published
    )  # fmt: skip
    if flags.out is not None:
        report.write(Path(flags.out), command=_command())
    if call.as_json:
        print(json.dumps(report.data(), ensure_ascii=False, allow_nan=False))
        return
    print_tables(output.console, report.tables)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if flags.out is not None:
        output.console.print(f"written to {flags.out}", soft_wrap=True)


def _serve(call: Invocation) -> None:
    if call.as_json:
        raise ConfigError("--json: a server has no result; it logs in JSON")
    settings = call.settings(ServeSettings)
    if call.inputs is not None:
        settings = replace(settings, prm=call.inputs)
    with output.working(), needs_extra("serve", "freeprm serve"):
        from freeprm.serving.running import serve
    with output.working():
        serve(settings)


def _verify(call: Invocation) -> None:
    from rich.table import Table
    from rich.text import Text

    settings = call.settings(VerifySettings)
    with output.working():
        from freeprm.stages.verifying import verify

        checks = verify(seed=settings.seed, out=None if settings.out is None else Path(settings.out))
    if call.as_json:
        rows = [{**asdict(check), "passed": check.passed} for check in checks]
        print(json.dumps({"out": str(settings.out) if settings.out else None, "checks": rows}))
    else:
        table = Table("check", "", "measured", "tolerance", "what", box=None, header_style="bold")
        for check in checks:
            mark = "[green]holds[/green]" if check.passed else "[red]FAILS[/red]"
            table.add_row(check.name, mark, f"{check.measured:.2e}", f"{check.tolerance:.0e}", Text(check.detail))
        output.console.print(table)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


_CONFIG: tuple[str, Any, Any] = (
    "config",
    Annotated[
        str | None,
        typer.Argument(help="TOML or YAML, or embedded (the default) or gsm8k-solutions.", show_default=False),
    ],
    None,
)
_RUNS: tuple[str, Any, Any] = (
    "runs",
    Annotated[
        list[str] | None,
        typer.Argument(
            help="A method each: \\[label=]FOLDER\\[,FOLDER...] of its selection, scores or training; what these were "
            "made from is found through their manifests.",
            show_default=False,
        ),
    ],
    None,
)
_PRM: tuple[str, Any, Any] = (
    "prm",
    Annotated[
        str | None,
        typer.Argument(
            help="Folder that `freeprm train` wrote, or a released model; or --untrained, or --scorer with --model.",
            show_default=False,
        ),
    ],
    None,
)
DEMO = Command(name="demo", settings={"": DemoSettings}, work=_demo, out="runs/demo")
EXPERIMENTS = (
    Command(
        name="compare", settings={"": CompareFlags}, work=_compare, out="runs/compare", inputs=_CONFIG,
        set_help="name=value over the config, e.g. train.n_problems=100.",
    ),
    Command(
        name="reproduce", settings={"": ReproduceFlags}, work=_reproduce, out=None,
        set_help="name=value over the preset, e.g. train.n_problems=100.",
    ),
    Command(name="cost", settings={"": CostFlags}, work=_cost, out=None, inputs=_RUNS),
    Command(name="serve", settings={"": ServeSettings}, work=_serve, out=None, inputs=_PRM),
    Command(name="verify", settings={"": VerifySettings}, work=_verify, out=None),
)  # fmt: skip
