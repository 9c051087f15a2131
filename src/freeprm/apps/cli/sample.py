"""`freeprm sample`: rollouts from a model."""

from pathlib import Path
from typing import Annotated

import typer

from freeprm.apps.cli import output
from freeprm.apps.cli.options import ExecutorName, ExecutorOptions, Json, Out, Seed


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
    executor: ExecutorName = "local",
    executor_options: ExecutorOptions = None,
    problem_seed: Annotated[int, typer.Option(help="Seed of the choice of problems.")] = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Sample responses; the same command goes on where it was interrupted."""
    from freeprm.io.config import read_assignments

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
