"""`freeprm pair`: graded rollouts to preference pairs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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
from freeprm.cli.options import Inputs, Json, Map, Out, Seed, SkipBad, on_bad, read_map


def pair(
    inputs: Inputs,
    out: Out = Path("runs/pairs"),
    pairing: Pairing = None,
    max_pairs: MaxPairs = None,
    balance: Balance = None,
    deduplicate: Deduplicate = None,
    instructions: Instructions = None,
    responses: Responses = None,
    mix: Mix = None,
    replace: Replace = None,
    keep: Annotated[
        Literal["pairs", "rollouts"], typer.Option(help="What to write: pairs, or the rollouts that are left.")
    ] = "pairs",
    seed: Seed = 0,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Make preference pairs of graded rollouts, in TRL's format; count what was left out."""
    from freeprm.core.curation import Recipe
    from freeprm.stages.pairing import pair as run

    options = {
        "pairing": pairing, "max_pairs": max_pairs, "balance": balance, "deduplicate": deduplicate,
        "instructions": instructions, "responses": responses, "mix": read_shares(mix, option="--mix"),
        "replace": read_shares(replace, option="--replace"), "seed": seed,
    }  # fmt: skip
    mapped = read_map(columns)
    with output.working():
        made = run(inputs, recipe=Recipe(**given(options)), out=out, keep=keep, columns=mapped, on_bad=on_bad(skip_bad))
    output.show(out=out, operations=made.operations, counts=made.counts, as_json=as_json)
