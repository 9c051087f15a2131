"""`freeprm select`: best-of-N, votes and their accuracy; with --early-stop best-of-N that scores as it chooses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from freeprm.cli import output
from freeprm.cli.options import (
    By,
    Inputs,
    Json,
    Map,
    Out,
    Scores,
    ScoresOptions,
    Seed,
    SkipBad,
    on_bad,
    read_map,
    read_names,
    read_numbers,
)
from freeprm.errors import ConfigError


def select(
    inputs: Inputs,
    out: Out = Path("runs/selection"),
    n: Annotated[str | None, typer.Option("--n", help="Samples to choose among, e.g. 1,4,16,64.")] = None,
    aggregator: Annotated[str, typer.Option(help="min, sum, mean, last, prod, max; several with commas.")] = "min",
    weighting: Annotated[
        str | None,
        typer.Option(help="Score to vote weight: sigmoid, raw, standardised, ...; by the scores' kind if not given."),
    ] = None,
    score_kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--score-kind",
            help="Of scores whose rows do not say it: log_odds, probability or unbounded; or SCORER=KIND.",
        ),
    ] = None,
    weight_scale: Annotated[
        float | None, typer.Option(help="Scores are multiplied by this, 1 by default, before they are weights.")
    ] = None,
    first: Annotated[bool, typer.Option("--first", help="The first n samples instead of random subsets.")] = False,
    by: By = None,
    answers_by: Annotated[
        str | None,
        typer.Option(help="Answers vote together by their value (default), or by their form, as in the game of 24."),
    ] = None,
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop", help="For rows without scores: best-of-n by --prm, which scores no more than finds it."
        ),
    ] = False,
    prm: Annotated[str | None, typer.Option(help="With --early-stop: what `freeprm train` wrote, or a hub id.")] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="With --early-stop: with-reference (default), without-reference or reference-only, as for `score`."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="With --early-stop: where the reference is, if it moved.")
    ] = None,
    splitter: Annotated[str | None, typer.Option(help="With --early-stop: as for `score`.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="With --early-stop: responses of a problem that go on at a time; 1 by default.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="With --early-stop: cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="With --early-stop: auto (default), float32, ...")] = None,
    scores: Scores = None,
    scores_options: ScoresOptions = None,
    seed: Seed = 0,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Choose one response or answer a problem, and say how often that is right."""
    of_scored = {
        "--weighting": weighting, "--score-kind": score_kinds, "--weight-scale": weight_scale,
        "--first": first or None, "--by": by, "--answers-by": answers_by, "--scores": scores,
        "--scores-option": scores_options,
    }  # fmt: skip
    of_early = {
        "--prm": prm, "--reward": reward, "--reference": reference, "--splitter": splitter, "--batch": batch,
        "--device": device, "--dtype": dtype,
    }  # fmt: skip
    if early_stop:
        _refuse(of_scored, "is for rows with scores; --early-stop takes the first n samples, and votes on nothing")
        _early(
            inputs, out=out, n=read_numbers(n), aggregator=aggregator, seed=seed, columns=read_map(columns),
            skip_bad=skip_bad, as_json=as_json, prm=prm, reward=reward or "with-reference", reference=reference,
            splitter=splitter, batch=1 if batch is None else batch, device=device, dtype=dtype or "auto",
        )  # fmt: skip
        return
    _refuse(
        of_early,
        "goes with --early-stop; without it the rows bring their scores: freeprm score ROLLOUTS --prm FOLDER",
    )
    from freeprm.core.score_kinds import BY_KIND
    from freeprm.io.config import read_assignments
    from freeprm.stages.selection import check_answers_by
    from freeprm.stages.selection import select as run

    with output.working():
        made = run(
            inputs,
            out=out,
            columns=read_map(columns),
            on_bad=on_bad(skip_bad),
            scores=scores or (),
            score_options=read_assignments(scores_options or ()),
            n=read_numbers(n),
            aggregators=read_names(aggregator),
            weighting=weighting or BY_KIND,
            score_kinds=_kinds(score_kinds or ()),
            weight_scale=1.0 if weight_scale is None else weight_scale,
            subsets="first" if first else "resample",
            by=by or (),
            answers_by=check_answers_by(answers_by or "value"),
            seed=seed,
        )
    output.show(out=out, metrics=made.metrics, counts=made.counts, as_json=as_json)


def _early(
    inputs: list[Path], *, out: Path, n: list[int] | None, aggregator: str, seed: int, columns: Mapping[str, str],
    skip_bad: bool, as_json: bool, prm: str | None, reward: str, reference: str | None, splitter: str | None,
    batch: int, device: str | None, dtype: str,
) -> None:  # fmt: skip
    from freeprm.core.early_stopping import check_aggregator
    from freeprm.core.rewards import check_reward

    if prm is None:
        raise ConfigError("--early-stop: give the reward model that is to score the rollouts, --prm FOLDER")
    check_aggregator(aggregator)
    check_reward(reward)
    with output.working():
        from freeprm.models.loading import check_dtype
        from freeprm.scorers.implicit import ImplicitPRM
        from freeprm.stages.early_selection import select_early

        model = ImplicitPRM.from_pretrained(
            prm,
            reference=reference,
            load_reference=reward != "without-reference",
            device=device,
            dtype=check_dtype(dtype),
        )
        made = select_early(
            inputs, prm=model, out=out, reward=reward, aggregator=aggregator, n=n, batch=batch, splitter=splitter,
            columns=columns, on_bad=on_bad(skip_bad), seed=seed,
        )  # fmt: skip
    output.show(out=out, metrics=made.metrics, counts=made.counts, cost=made.cost, as_json=as_json)


def _kinds(told: Sequence[str]) -> str | dict[str, str]:
    """`KIND` for all scorers, or `SCORER=KIND` for each."""
    if len(told) == 1 and "=" not in told[0]:
        return told[0]
    pairs = [text.rpartition("=") for text in told]
    if bare := [text for text, (scorer, _, _) in zip(told, pairs, strict=True) if not scorer]:
        raise ConfigError(f"--score-kind {bare[0]}: expected SCORER=KIND, or one KIND for all scorers")
    return {scorer: kind for scorer, _, kind in pairs}


def _refuse(options: Mapping[str, Any], why: str) -> None:
    """Refuse options that were given.

    Raises:
        ConfigError: names the first.
    """
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} {why}")
