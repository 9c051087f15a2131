"""`freeprm train`: graded rollouts to a reward model, implicit or one of the baselines."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from freeprm.cli import output
from freeprm.cli.data_options import (
    Balance,
    Deduplicate,
    Instructions,
    MaxPairs,
    Mix,
    Pairing,
    Replace,
    Responses,
    given,
    read_shares,
)
from freeprm.cli.options import Inputs, Json, Map, Out, SkipBad, on_bad, read_map

if TYPE_CHECKING:
    from freeprm.stages.training import Plan


def train(
    inputs: Inputs,
    out: Out = Path("runs/prm"),
    model: Annotated[str | None, typer.Option(help="Start and reference: a folder, a hub id, or solver:base.")] = None,
    objective: Annotated[str | None, typer.Option(help="ce, dpo, kto, nca, ... or package.module:Name.")] = None,
    parameterisation: Annotated[
        str | None, typer.Option(help="log_ratio (default), or a value read off the model itself: linear or tokens.")
    ] = None,
    read_at: Annotated[
        str | None, typer.Option(help="Where values are read: steps or response; by default what the objective needs.")
    ] = None,
    judgement: Annotated[
        tuple[str, str] | None, typer.Option(help="Good and bad token of parameterisation tokens; + - by default.")
    ] = None,
    step_labels: Annotated[
        str | None, typer.Option(help="hard (column step_labels) or soft (step_values), for objectives on steps.")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(help="Reward scale; by default what is published for the objective, e.g. 0.05 of ce."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Another reference than the model itself, or than its own if it has one.")
    ] = None,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="Train r = beta * log pi alone.")] = False,
    pairing: Pairing = None,
    max_pairs: MaxPairs = None,
    balance: Balance = None,
    deduplicate: Deduplicate = None,
    instructions: Instructions = None,
    responses: Responses = None,
    mix: Mix = None,
    replace: Replace = None,
    lora: Annotated[int | None, typer.Option(help="Rank of LoRA adapters.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of prompt and response.")] = None,
    too_long: Annotated[str | None, typer.Option(help="error, exclude or truncate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    preset: Annotated[str | None, typer.Option(help="embedded: settings for the shipped solver.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a TOML or YAML file.", exists=True)] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="name=value; trainer.NAME is any field of TrainingArguments.")
    ] = None,
    dev: Annotated[
        list[Path] | None, typer.Option(help="Graded rollouts to evaluate on after each epoch.", exists=True)
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where reference log-probabilities are kept.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every setting, where it comes from and what would be trained; stop.")
    ] = False,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Train an implicit process reward model on right-or-wrong labels, or a baseline."""
    from freeprm.training.settings import given_by, load_settings

    options: dict[str, Any] = {
        "model": model, "objective": objective, "parameterisation": parameterisation, "read_at": read_at,
        "judgement": judgement, "step_labels": step_labels, "beta": beta, "reference": reference, "lora": lora,
        "max_length": max_length, "too_long": too_long, "seed": seed, "with_reference": False if no_reference else None,
        "pairing": pairing, "max_pairs": max_pairs, "balance": balance, "deduplicate": deduplicate,
        "instructions": instructions, "responses": responses, "mix": read_shares(mix, option="--mix"),
        "replace": read_shares(replace, option="--replace"),
    }  # fmt: skip
    layers: dict[str, Any] = {
        "options": given(options), "preset": preset, "file": config, "assignments": assignments or ()
    }  # fmt: skip
    settings = load_settings(**layers)
    mapped = read_map(columns)
    if dry_run:
        from freeprm.stages.training import plan

        with output.working():
            planned = plan(inputs, settings=settings, columns=mapped, on_bad=on_bad(skip_bad), dev=dev or ())
        if os.environ.get("RANK", "0") == "0":
            _show(planned, given_by(**layers), as_json=as_json)
        return
    with output.working():
        from freeprm.stages.training import train as run

        made = run(
            inputs,
            settings=settings,
            out=out,
            columns=mapped,
            on_bad=on_bad(skip_bad),
            dev=dev or (),
            cache=cache,
        )
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        output.show_parts(
            out=out, metrics=made.metrics, operations=made.operations, counts=made.counts, cost=made.cost,
            as_json=as_json,
        )  # fmt: skip


def _show(plan: "Plan", given_by: Mapping[str, str], *, as_json: bool) -> None:
    """Print what would be trained, and every setting with where its value comes from."""
    from freeprm.training.settings import named

    values = named(asdict(plan.settings))
    origins = {name: given_by.get(name) or plan.sources.get(name, "default") for name in values}
    if as_json:
        shown = {
            "settings": {name: {"value": value, "from": origins[name]} for name, value in values.items()},
            "counts": dict(plan.counts), "operations": [asdict(done) for done in plan.operations],
            "steps": plan.n_steps, "weights": plan.weights._asdict(),
        }  # fmt: skip
        print(json.dumps(shown, ensure_ascii=False, allow_nan=False))
        return
    for name, value in values.items():
        line = Text.assemble(f"{name:<36} {value!s:<24} ", (origins[name], "dim"))
        output.console.print(line, soft_wrap=True)
    output.show_work(operations=plan.operations, counts=plan.counts)
    trained, frozen, n_bytes = plan.weights
    memory = "of unknown size" if n_bytes is None else f"{n_bytes / 1e9:.3g} GB"
    output.console.print(
        f"would train {trained:,} weights in {plan.n_steps:,} steps, beside {frozen:,} frozen ones. Weights, gradients "
        f"and optimizer: {memory} over all GPUs that shard them; activations on top. Nothing was trained or written",
        soft_wrap=True,
    )
