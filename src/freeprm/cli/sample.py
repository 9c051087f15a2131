"""`freeprm sample`: rollouts from a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from freeprm.cli import output
from freeprm.cli.options import ExecutorName, ExecutorOptions, Json, Out, Seed
from freeprm.errors import ConfigError


def sample(
    problems: Annotated[str, typer.Argument(help="A dataset name (arithmetic) or a file of problems.")],
    model: Annotated[str, typer.Option(help="A folder, a hub id, or solver:base.")] = "solver:base",
    out: Out = Path("runs/rollouts"),
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "train",
    n_problems: Annotated[int | None, typer.Option(help="Problems to take.")] = None,
    n: Annotated[int, typer.Option(help="Samples a problem.")] = 8,
    temperature: Annotated[float, typer.Option(help="0 for greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Nucleus.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Cut a sample here, and mark it truncated.")] = 512,
    workers: Annotated[int | None, typer.Option(help="Processes; decided by the device if not given.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends a response; may be repeated.")] = None,
    engine: Annotated[str, typer.Option(help="What draws the samples: hf, or package.module:Name.")] = "hf",
    engine_options: Annotated[
        list[str] | None, typer.Option("--engine-option", help="name=value, e.g. dtype=bfloat16.")
    ] = None,
    dataset_options: Annotated[
        list[str] | None, typer.Option("--dataset-option", help="name=value, a field of the dataset.")
    ] = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="Note token log-probabilities: the reference is free later.")
    ] = False,
    early_stop: Annotated[
        bool,
        typer.Option("--early-stop", help="Find the best of n by --prm, and abandon samples that have fallen behind."),
    ] = False,
    prm: Annotated[str | None, typer.Option(help="With --early-stop: what `freeprm train` wrote, or a hub id.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="With --early-stop: with-reference (default), ..., as for `score`.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="With --early-stop: where the reference is, if it moved.")
    ] = None,
    splitter: Annotated[
        str | None, typer.Option(help="With --early-stop: step_markers, lines, blank_lines or sentences.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="With --early-stop: samples of a problem written on at a time; 1 by default.")
    ] = None,
    executor: ExecutorName = "local",
    executor_options: ExecutorOptions = None,
    problem_seed: Annotated[int, typer.Option(help="Seed of the choice of problems.")] = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Sample responses; the same command goes on where it was interrupted."""
    from freeprm.io.config import read_assignments

    of_early = {
        "--prm": prm, "--reward": reward, "--reference": reference, "--splitter": splitter, "--batch": batch,
    }  # fmt: skip
    if early_stop:
        whole = {
            "--workers": workers, "--engine": None if engine == "hf" else engine, "--logprobs": logprobs or None,
            "--executor": None if executor == "local" else executor, "--executor-option": executor_options,
        }  # fmt: skip
        _refuse(whole, "is for samples that are all finished; --early-stop draws with the hf engine, in one process")
        common: dict[str, Any] = {
            "model": model, "out": out, "split": split, "n_problems": n_problems, "n": n, "temperature": temperature,
            "top_p": top_p, "max_new_tokens": max_new_tokens, "stop": stop or (), "seed": seed,
            "problem_seed": problem_seed, "dataset_options": read_assignments(dataset_options or ()),
            "engine_options": read_assignments(engine_options or ()),
        }  # fmt: skip
        _early(
            problems, common, as_json=as_json, prm=prm, reward=reward or "with-reference", reference=reference,
            splitter=splitter, batch=1 if batch is None else batch,
        )  # fmt: skip
        return
    _refuse(of_early, "goes with --early-stop; to score whole samples: freeprm score ROLLOUTS --prm FOLDER")
    with output.working():
        from freeprm.stages.sampling import sample as run

        made = run(
            problems,
            model=model,
            out=out,
            split=split,
            n_problems=n_problems,
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            stop=stop or (),
            seed=seed,
            problem_seed=problem_seed,
            engine=engine,
            workers=workers,
            dataset_options=read_assignments(dataset_options or ()),
            engine_options=read_assignments(engine_options or ()),
            logprobs=logprobs,
            executor=executor,
            executor_options=read_assignments(executor_options or ()),
        )
    output.show(out=out, counts=made.counts, cost=made.cost, as_json=as_json)


def _early(
    problems: str, common: Mapping[str, Any], *, as_json: bool, prm: str | None, reward: str, reference: str | None,
    splitter: str | None, batch: int,
) -> None:  # fmt: skip
    from freeprm.core.rewards import check_reward
    from freeprm.core.steps import check_settling

    if prm is None:
        raise ConfigError("--early-stop: give the reward model that is to choose, --prm FOLDER")
    check_reward(reward)
    if splitter is not None:
        check_settling(splitter)
    with output.working():
        from freeprm.models.loading import check_dtype
        from freeprm.scorers.implicit import ImplicitPRM
        from freeprm.stages.early_sampling import sample_early

        given = common["engine_options"]
        loaded = ImplicitPRM.from_pretrained(
            prm,
            reference=reference,
            load_reference=reward != "without-reference",
            device=given.get("device"),
            dtype=check_dtype(given.get("dtype", "auto")),
        )
        made = sample_early(problems, prm=loaded, reward=reward, splitter=splitter, batch=batch, **common)
    output.show(out=made.folder, counts=made.counts, cost=made.cost, as_json=as_json)


def _refuse(options: Mapping[str, Any], why: str) -> None:
    """Refuse options that were given.

    Raises:
        ConfigError: names the first.
    """
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} {why}")
