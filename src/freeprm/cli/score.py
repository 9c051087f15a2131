"""`freeprm score`: step rewards for rollouts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from freeprm.cli import output
from freeprm.cli.options import (
    ExecutorName,
    ExecutorOptions,
    Inputs,
    Json,
    Map,
    Out,
    SkipBad,
    on_bad,
    read_map,
    read_names,
)
from freeprm.errors import ConfigError


def score(
    inputs: Inputs,
    prm: Annotated[str | None, typer.Option(help="Folder that `freeprm train` wrote, or a hub id.")] = None,
    untrained: Annotated[str | None, typer.Option(help="Instead of --prm: a plain model as its own scorer.")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Instead of --prm: a released model's recipe, e.g. math_shepherd; with --model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of --scorer: a folder or a hub id.")] = None,
    out: Out = Path("runs/scores"),
    reward: Annotated[
        str | None,
        typer.Option(
            help="with-reference (default with --prm), without-reference, reference-only (default with --untrained); "
            "several with commas."
        ),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Where the reference is now, if it moved.")] = None,
    beta: Annotated[float | None, typer.Option(help="Must equal reward.json's, unless overridden.")] = None,
    no_stored_reference: Annotated[
        bool, typer.Option("--no-stored-reference", help="Compute the reference also where rollouts bring it.")
    ] = False,
    override: Annotated[list[str] | None, typer.Option(help="beta, reference or template: may differ.")] = None,
    splitter: Annotated[
        str | None, typer.Option(help="auto, step_markers, lines, blank_lines, sentences or tokens.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Put before the reward in the scorer's name.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Write token rewards too.")] = False,
    too_long: Annotated[str, typer.Option(help="error, exclude or truncate.")] = "exclude",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    reference_device: Annotated[
        str | None, typer.Option(help="Of the reference, e.g. cuda:1: both models then work at the same time.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    attention: Annotated[str | None, typer.Option(help="e.g. flash_attention_2.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the model brings.")
    ] = False,
    token_budget: Annotated[int | None, typer.Option(help="Tokens in one batch; by device if not given.")] = None,
    executor: ExecutorName = "local",
    executor_options: ExecutorOptions = None,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Score every step of every response; writes one file a reward."""
    from freeprm.core.rewards import check_reward
    from freeprm.io.config import read_assignments

    if sum(item is not None for item in (prm, untrained, scorer)) != 1 or (scorer is None) != (model is None):
        raise ConfigError("give one of --prm FOLDER, --untrained MODEL, or --scorer NAME --model MODEL")
    of_log_ratios = {
        "--reward": reward,
        "--beta": beta,
        "--override": override,
        "--tokens": tokens or None,
        "--reference-device": reference_device,
    }
    if scorer is not None:
        _refuse(of_log_ratios, "a released model gives the scores that it gives")
    if untrained is not None and reference_device is not None:
        raise ConfigError("--reference-device: is for --prm; a model that is its own reference is on one device")
    rewards = read_names(reward) if reward else []
    mapped = read_map(columns)
    for item in rewards:
        check_reward(item)
    with output.working():
        from freeprm.models.encoding import check_too_long
        from freeprm.models.loading import LoadOptions, check_dtype
        from freeprm.models.reward_config import check_override
        from freeprm.scorers.base import ScorerSource
        from freeprm.stages.scoring import score as score_rollouts

        source = ScorerSource(
            source=str(prm or untrained or model),
            scorer=scorer if untrained is None else "untrained",
            reference=reference,
            load_reference=rewards != ["without-reference"],
            beta=beta,
            override=tuple(check_override(item) for item in override or ()),
            stored_reference=not no_stored_reference,
            reference_device=reference_device,
            options=LoadOptions(
                device=device, dtype=check_dtype(dtype), attention=attention, trust_remote_code=trust_remote_code
            ),
        )
        if prm is not None and not ScorerSource(source=prm, load_reference=False).describe().rewards:
            _refuse({**of_log_ratios, "--reference": reference}, f"{prm} gives values")
        made = score_rollouts(
            inputs,
            prm=source,
            out=out,
            rewards=rewards,
            name=name,
            splitter=splitter,
            tokens=tokens,
            too_long=check_too_long(too_long),
            columns=mapped,
            on_bad=on_bad(skip_bad),
            token_budget=token_budget,
            executor=executor,
            executor_options=read_assignments(executor_options or ()),
        )
    output.show_parts(out=out, counts=made.counts, cost=made.cost, as_json=as_json)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse options that were given though they are for log-ratios."""
    if unfit := [name for name, value in options.items() if value is not None]:
        raise ConfigError(f"{unfit[0]}: is for log-ratios; {why}")
