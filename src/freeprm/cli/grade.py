"""`freeprm grade`: right-or-wrong labels for rollouts."""

from collections.abc import Sequence
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


def grade(
    inputs: Inputs,
    out: Out = Path("runs/graded"),
    regrade: Annotated[
        bool,
        typer.Option(
            "--regrade", help="Find and judge every answer anew: replaces the labels and the `pred` that rows bring."
        ),
    ] = False,
    extractors: Annotated[
        list[str] | None,
        typer.Option(
            help="How answers are found: boxed, marker, last_number, with commas; regex:PATTERN or package.module:name "
            "by itself. May be repeated; the first that finds an answer decides."
        ),
    ] = None,
    gold: Annotated[Path | None, typer.Option(help="Problems with problem_id and answer.", exists=True)] = None,
    grader: Annotated[
        str, typer.Option(help="math, numeric, text, choice, or package.module:name, called with answer and gold.")
    ] = "math",
    grader_options: Annotated[
        list[str] | None, typer.Option("--grader-option", help="name=value, e.g. decimals=2.")
    ] = None,
    no_answer: Annotated[
        str, typer.Option(help="A response without an answer is wrong, or has none: no label, and a reason.")
    ] = "wrong",
    timeout: Annotated[float, typer.Option(help="Seconds for one answer; then it has no label.")] = 5.0,
    memory: Annotated[
        int, typer.Option(help="MiB for a worker process; an answer that needs more has no label.")
    ] = 2048,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core if not given.")] = None,
    executor: ExecutorName = "local",
    executor_options: ExecutorOptions = None,
    columns: Map = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Find each response's answer and compare it with the gold answer."""
    from freeprm.core.answers.extraction import DEFAULT_EXTRACTORS
    from freeprm.io.config import read_assignments
    from freeprm.stages.grading import grade as run

    with output.working():
        made = run(
            inputs,
            out=out,
            columns=read_map(columns),
            on_bad=on_bad(skip_bad),
            regrade=regrade,
            extractors=_read_extractors(extractors) if extractors else DEFAULT_EXTRACTORS,
            gold=gold,
            grader=grader,
            grader_options=read_assignments(grader_options or ()),
            no_answer=no_answer,  # type: ignore[arg-type]  # the stage refuses what is neither
            timeout=timeout,
            memory_mib=memory,
            workers=workers,
            executor=executor,
            executor_options=read_assignments(executor_options or ()),
        )
    output.show(out=out, metrics=made.metrics, counts=made.counts, as_json=as_json)


def _read_extractors(texts: Sequence[str]) -> list[str]:
    """Names with commas between them; an expression or a function, which may hold commas, by itself."""
    return [name for text in texts for name in ([text] if ":" in text else read_names(text))]
