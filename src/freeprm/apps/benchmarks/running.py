"""Running benchmarks by name, and their rows as JSON."""

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from freeprm.bench.base import Benchmark, Row
from freeprm.errors import ConfigError, RecordError
from freeprm.io.jsonl import write_json
from freeprm.io.plugins import load, names

_CPU_INFO = Path("/proc/cpuinfo")
_VERSIONS = ("torch", "transformers", "trl")


def run(
    chosen: Sequence[str], *, quick: bool, threads: int | None, command: str, finished: Callable[[list[Row]], None]
) -> list[Row]:
    """The rows of the benchmarks of these names, in their order.

    Args:
        chosen: names; all benchmarks if empty.
        quick: see `Benchmark`.
        threads: of torch; as many as it takes by itself if not given.
        command: what was typed, kept with each row.
        finished: told all rows so far after each one, so that nothing measured is lost.

    Raises:
        ConfigError: less than one thread.
        PluginError: no benchmark of a name; before anything is run.
        BenchmarkError: ours and a peer's numbers differ.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads: is {threads}; expected 1 or more")
        torch.set_num_threads(threads)
    benchmarks: list[Benchmark] = [load("bench", name) for name in chosen or names("bench")]
    circumstances = {"hardware": hardware(), "command": command}
    rows: list[Row] = []
    for benchmark in benchmarks:
        for row in benchmark(quick=quick):
            rows.append(replace(row, details={**row.details, **circumstances}))
            finished(rows)
    return rows


def hardware() -> str:
    """What the figures are taken on: processor or GPU, threads, versions."""
    import torch

    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    versions = [f"{name} {version(name)}" for name in _VERSIONS if find_spec(name)]
    return (
        f"{gpu}{n_cores} cores of {_processor()}, {torch.get_num_threads()} threads; {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def write_rows(rows: Sequence[Row], file: Path) -> None:
    """A JSON list of rows; each also says whether it meets its target."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, [{**asdict(row), "met": row.met} for row in rows])


def read_rows(file: Path) -> list[Row]:
    """What `write_rows` wrote.

    Raises:
        RecordError: something else is in the file.
    """
    try:
        made: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return [Row(**{name: value for name, value in row.items() if name != "met"}) for row in made]
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{file}: not the rows of benchmarks ({error}); expected what `freeprm bench --json` wrote"
        ) from error


def _processor() -> str:
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines() if _CPU_INFO.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
