"""The output of commands: tables for people or JSON for programs; standard output has nothing else."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freeprm.types import Cost, Metric

if TYPE_CHECKING:
    from freeprm.core.curation import Operation
    from freeprm.stages.base import RunResult
    from freeprm.stages.training import TrainingPlan

console = Console()


@contextmanager
def working() -> Iterator[None]:
    """Redirect everything that a stage and its libraries print to stderr."""
    with redirect_stdout(sys.stderr):
        yield


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without file and code; for `warnings.showwarning`."""
    print(f"warning: {message}", file=file or sys.stderr)


def show(made: "RunResult", *, as_json: bool) -> None:
    """Print a stage's result."""
    show_parts(
        out=made.folder, metrics=made.metrics, counts=made.counts, cost=made.cost, operations=made.operations,
        as_json=as_json,
    )  # fmt: skip


def show_parts(
    *, out: Path, metrics: Sequence[Metric] = (), counts: Mapping[str, Any] | None = None, cost: Cost | None = None,
    operations: Sequence["Operation"] = (), as_json: bool,
) -> None:  # fmt: skip
    """Print a stage's result."""
    if as_json:
        result = {
            "out": str(out), "metrics": [asdict(metric) for metric in metrics], "counts": dict(counts or {}),
            "cost": asdict(cost) if cost else None,
            **({"operations": [asdict(done) for done in operations]} if operations else {}),
        }  # fmt: skip
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    if metrics:
        from freeprm.report.metrics import metric_tables
        from freeprm.report.table import print_tables

        print_tables(console, list(metric_tables(metrics).values()))
    show_work(operations=operations, counts=counts or {})
    if cost:
        console.print(Text(_cost(cost), style="dim"))
    console.print(Text.assemble("written to ", (str(out), "bold")), soft_wrap=True)


def show_work(*, operations: Sequence["Operation"], counts: Mapping[str, Any]) -> None:
    """Print operations on data, and counts."""
    if operations:
        from freeprm.report.metrics import operations_table
        from freeprm.report.table import print_tables

        print_tables(console, [operations_table(operations)])
    if counts:
        table = Table("counted", "", box=None, header_style="bold")
        for name, value in counts.items():
            table.add_row(Text(str(name)), f"{value:,}" if isinstance(value, int) else Text(str(value)))
        console.print(table)


def _cost(cost: Cost) -> str:
    tokens = {
        "prompt": cost.prompt_tokens, "generated": cost.generated_tokens, "scored": cost.scored_tokens,
        "trained": cost.trained_tokens,
    }  # fmt: skip
    parts = [f"{count:,} {name} tokens" for name, count in tokens.items() if count]
    if cost.flops is None:
        parts.append("unknown FLOPs")
    elif cost.flops or parts:
        parts.append(f"{cost.flops:.3g} FLOPs")
    parts.append(f"{cost.seconds:.1f} s")
    return ", ".join([*parts, *([f"{cost.gpu_seconds:.1f} GPU-s"] if cost.gpu_seconds else [])])


def show_plan(plan: "TrainingPlan", given_by: Mapping[str, str], *, as_json: bool) -> None:
    """Print what would be trained, and every setting with the source of its value."""
    from freeprm.training.settings import named

    values, expected, weights = named(plan.settings.deciding()), plan.forecast, plan.forecast.weights
    origins = {name: given_by.get(name) or plan.sources.get(name, "default") for name in values}
    if as_json:
        shown = {
            "settings": {name: {"value": value, "from": origins[name]} for name, value in values.items()},
            "counts": dict(plan.counts), "operations": [asdict(done) for done in plan.operations],
            "steps": expected.n_steps,
            "weights": {"trained": weights.trained, "frozen": weights.frozen, "n_bytes": weights.n_bytes},
            "responses": expected.data.n_responses, "prompts": expected.data.n_prompts,
            "tokens": expected.n_tokens, "flops": expected.flops, "bytes": expected.n_bytes,
        }  # fmt: skip
        print(json.dumps(shown, ensure_ascii=False, allow_nan=False))
        return
    for name, value in values.items():
        line = Text.assemble(f"{name:<36} {value!s:<24} ", (origins[name], "dim"))
        console.print(line, soft_wrap=True)
    show_work(operations=plan.operations, counts=plan.counts)
    memory = "of unknown size" if weights.n_bytes is None else f"{weights.n_bytes / 1e9:.3g} GB"
    console.print(f"would train on {expected}", soft_wrap=True)
    console.print(
        f"trained are {weights.trained:,} weights, beside {weights.frozen:,} frozen ones. Weights, gradients and "
        f"optimizer: {memory} over all GPUs that shard them. Nothing was trained or written",
        soft_wrap=True,
    )
