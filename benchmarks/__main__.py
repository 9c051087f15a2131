"""`python -m benchmarks [NAME ...]`: run benchmarks, show their rows and write them down."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import timing
from benchmarks.rows import Row, growth_plot, markdown, number, terminal_table
from freeprm.cli import output
from freeprm.errors import ConfigError, FreePRMError, MissingExtraError, PluginError
from freeprm.io.plugins import load
from freeprm.io.rows import write_json

BENCHMARKS = {
    "early_stopping": "benchmarks.log_ratios:early_stopping", "gpu": "benchmarks.gpu:gpu",
    "grading": "benchmarks.grading:grading", "growth": "benchmarks.scoring:growth",
    "memory": "benchmarks.memory:memory", "real": "benchmarks.real:real", "scoring": "benchmarks.scoring:scoring",
    "serving": "benchmarks.serving:serving", "soak": "benchmarks.serving:soak", "solver": "benchmarks.solver:solver",
    "stored_reference": "benchmarks.log_ratios:stored_reference", "training": "benchmarks.training:training",
}  # fmt: skip
"""Where each is; it yields rows as they are measured, with small sizes if `quick`."""
_Benchmark = Callable[..., Iterator[Row]]
_CPU_INFO = Path("/proc/cpuinfo")
_VERSIONS = ("torch", "transformers", "trl")

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    benchmarks: Annotated[
        list[str] | None, typer.Argument(help="scoring, training, ...; all if none is named.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: all benchmarks within 3 minutes.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write rows.json, README.md and the plots to this folder.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch; by default as many as it takes by itself.")] = None,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Seconds are processor time, for a machine with other work: --threads 1.")
    ] = False,
) -> None:
    """Measure speed and memory beside the released scorer's way, plain transformers, TRL and matrix products."""
    if out and not find_spec("matplotlib"):
        raise MissingExtraError("matplotlib is not installed; for the plots of --out: pip install 'freeprm[bench]'")
    if cpu_time and threads != 1:
        raise ConfigError("cpu_time: several threads would add up; expected --threads 1 with --cpu-time")
    files = [file for file in (json_file, out and out / "rows.json") if file]

    def finished(rows: list[Row]) -> None:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, [{**asdict(row), "met": row.met} for row in rows])
        row = rows[-1]
        print(f"{row.name}: {number(row.ours) or '-'} {row.unit}, ratio {number(row.ratio) or '-'}", file=sys.stderr)

    timing.clock = time.process_time if cpu_time else time.perf_counter
    with output.working():
        rows = run(benchmarks or list(BENCHMARKS), quick=quick, threads=threads, finished=finished)
        if out:
            growth_plot(rows, out / "growth.svg")
            (out / "README.md").write_text(markdown(rows), encoding="utf-8")
    output.console.print(terminal_table(rows))
    for file in files:
        output.console.print(f"written to {file}", soft_wrap=True)


def run(names: Sequence[str], *, quick: bool, threads: int | None, finished: Callable[[list[Row]], None]) -> list[Row]:
    """The rows of benchmarks, in the order of their names; each row with the hardware and the command typed.

    Args:
        names: of `BENCHMARKS`, or `package.module:Name`.
        quick: sizes for a look in half a minute, instead of those that the targets are stated for.
        threads: of torch; as many as it takes by itself if not given.
        finished: told all rows so far after each one, so that nothing measured is lost.

    Raises:
        ConfigError: less than one thread.
        PluginError: no benchmark of a name; before anything is run.
        BenchmarkError: ours and a peer's numbers differ, so their speed cannot be compared.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads: is {threads}; expected 1 or more")
        torch.set_num_threads(threads)
    for name in names:
        if name not in BENCHMARKS and ":" not in name:
            raise PluginError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    chosen: list[_Benchmark] = [load("benchmarks", BENCHMARKS.get(name, name)) for name in names]
    circumstances = {"hardware": hardware(), "command": " ".join(["python -m benchmarks", *sys.argv[1:]])}
    rows: list[Row] = []
    for benchmark in chosen:
        for row in benchmark(quick=quick):
            rows.append(replace(row, details={**row.details, **circumstances}))
            finished(rows)
    return rows


def hardware() -> str:
    """What the figures are taken on: processor or GPU, threads, versions."""
    import torch

    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines() if _CPU_INFO.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    processor = next(named, platform.processor() or platform.machine())
    versions = [f"{name} {version(name)}" for name in _VERSIONS if find_spec(name)]
    return (
        f"{gpu}{n_cores} cores of {processor}, {torch.get_num_threads()} threads; {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as `freeprm` does, and before torch is loaded
    try:
        app()
    except FreePRMError as error:
        sys.exit(f"{type(error).__name__}: {error}")
