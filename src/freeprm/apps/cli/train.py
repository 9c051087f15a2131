"""`freeprm train`: graded rollouts to a reward model, implicit or one of the baselines."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from freeprm.apps.cli import output
from freeprm.apps.cli.data_options import (
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
from freeprm.apps.cli.options import Inputs, Json, Map, Out, SkipBad, on_bad, read_map


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
    beta: Annotated[float | None, typer.Option(help="Reward scale; 0.05 unless the preset says otherwise.")] = None,
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
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Train an implicit process reward model on right-or-wrong labels, or a baseline."""
    from freeprm.training.settings import load_settings

    options: dict[str, Any] = {
        "model": model, "objective": objective, "parameterisation": parameterisation, "read_at": read_at,
        "judgement": judgement, "step_labels": step_labels, "beta": beta, "reference": reference, "lora": lora,
        "max_length": max_length, "too_long": too_long, "seed": seed, "with_reference": False if no_reference else None,
        "pairing": pairing, "max_pairs": max_pairs, "balance": balance, "deduplicate": deduplicate,
        "instructions": instructions, "responses": responses, "mix": read_shares(mix, option="--mix"),
        "replace": read_shares(replace, option="--replace"),
    }  # fmt: skip
    settings = load_settings(options=given(options), preset=preset, file=config, assignments=assignments or ())
    mapped = read_map(columns)
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
        output.show(
            out=out, metrics=made.metrics, operations=made.operations, counts=made.counts, cost=made.cost,
            as_json=as_json,
        )  # fmt: skip
