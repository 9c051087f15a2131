"""`freeprm plan`: its flags, and what it prints."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freeprm.cli import output
from freeprm.cli.builder import Command, Invocation
from freeprm.settings import File, Flag, LaunchSettings, TrainSettings

if TYPE_CHECKING:
    from freeprm.training.planning import LaunchPlan


@dataclass(frozen=True, kw_only=True)
class PlanFlags(LaunchSettings, TrainSettings):
    """Say whether a training run fits its GPUs, and how long it takes on them; nothing is loaded or launched."""

    preset: str | None = None
    """As for `train`: embedded or small."""
    out: Annotated[File | None, Flag(hidden=True)] = None
    """Nothing is written."""


def _plan(call: Invocation) -> None:
    from freeprm.io.config import build
    from freeprm.training.settings import load_settings

    own = {item.name for item in fields(LaunchSettings)}
    given = dict(call.layers["option"])
    preset = given.pop("preset", None)
    launch = build(LaunchSettings, [{name: value for name, value in given.items() if name in own}])
    options = {name: value for name, value in given.items() if name not in own}
    settings = load_settings(options=options, preset=preset, file=call.config, assignments=call.assignments)
    with output.working():
        from freeprm.training.planning import plan_launch

        made = plan_launch(settings, launch, [Path(path) for path in call.inputs or ()])
    if call.as_json:
        print(json.dumps(_data(made), ensure_ascii=False, allow_nan=False))
        return
    _show(made, settings)


def _data(made: "LaunchPlan") -> dict[str, Any]:
    expected, held = made.forecast, made.forecast.footprint
    return {
        "launch": asdict(made.launch), "gpu_bytes": made.device.n_bytes, "gpu_flops": made.device.flops,
        "weights": {"trained": expected.weights.trained, "frozen": expected.weights.frozen},
        "bytes": {
            **held.states._asdict(), "activations": held.activations, "logits": held.logits, "step": held.training,
            "loading": held.loading, "reference": held.reference, "peak": held.peak, "host": held.host,
        },
        "fits": made.fits, "changes": list(made.changes), "responses": expected.data.n_responses,
        "prompts": expected.data.n_prompts, "steps": expected.n_steps, "tokens": expected.n_tokens,
        "flops": expected.flops, "reference_flops": expected.reference_flops, "gpu_hours": made.gpu_hours,
        "reference_gpu_hours": made.reference_gpu_hours, "hours": made.hours,
    }  # fmt: skip


def _show(made: "LaunchPlan", settings: TrainSettings) -> None:
    from freeprm.report.table import Cell, Table, print_tables

    launch, expected = made.launch, made.forecast
    kind = launch.gpu if launch.max_memory is None else f"{launch.max_memory} of a GPU"
    how = f"LoRA {settings.lora}" if settings.lora else "all weights"
    print_tables(
        output.console,
        [
            Table(
                title=f"{settings.model}, {settings.objective}, {how}: {launch.gpus} x {kind}, {launch.sharding}",
                header=("on each GPU", "GB"),
                rows=tuple((Cell(what), Cell(_gb(n_bytes))) for what, n_bytes in _rows(made)),
            )
        ],
    )
    say = {True: "[green]fits[/green]", False: "[red]does not fit[/red]", None: "unknown"}[made.fits]
    console = output.console
    console.print(f"{say}: {_gb(made.device.n_bytes)} GB a GPU", soft_wrap=True, highlight=False)
    if made.fits is False:
        advice = "; ".join(made.changes) or "a smaller model: nothing that was tried is enough"
        console.print(f"to make it fit: {advice}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"would train on {expected}", soft_wrap=True, highlight=False)
    console.print(
        f"at {launch.mfu:.0%} of {made.device.flops / 1e12:.0f} TFLOP/s: {made.gpu_hours:.3g} GPU hours, "
        f"and {made.reference_gpu_hours:.3g} for the reference ({expected.reference_flops:.2g} FLOPs): "
        f"{made.hours:.3g} hours",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    if not made.mixed:
        console.print(
            "computed in float32, for which the peak is lower than the one taken: give --set trainer.bf16=true",
            soft_wrap=True, highlight=False,
        )  # fmt: skip


def _rows(made: "LaunchPlan") -> Iterator[tuple[str, int | None]]:
    held = made.forecast.footprint
    sharded = made.launch.sharding != "ddp"
    yield "weights", held.states.parameters
    yield "layers put together of shards" if sharded else "16-bit copies of weights", held.states.copies
    yield "gradients", held.states.gradients
    yield "gradients that are summed up over GPUs", held.states.buckets
    yield "optimizer", held.states.optimizer
    yield "activations", held.activations
    yield "logits and the output head's gradient", held.logits
    yield "in a step, at most", held.training
    yield "before: policy while it is loaded", held.loading
    yield "before: reference while it reads", held.reference
    yield "peak", held.peak
    yield "of the machine's memory, for each GPU", held.host


def _gb(n_bytes: int | None) -> str:
    return "unknown" if n_bytes is None else f"{n_bytes / 1e9:.1f}"


_INPUTS = (
    "inputs",
    Annotated[
        list[str] | None,
        typer.Argument(help="Graded rollouts, whose size is taken; without them see --n-prompts.", show_default=False),
    ],
    None,
)
PLAN = Command(name="plan", settings={"": PlanFlags}, work=_plan, out=None, inputs=_INPUTS, is_open=True)
