"""Processes that train together on the CPU, by the files of configs/accelerate; as a script, the runs of one of them.

`accelerate launch --cpu` starts one process, whatever number it is given, so it is not used here.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from transformers import TrainerControl, TrainerState, TrainingArguments

from conftest import REPO
from freeprm.stages.training import train
from freeprm.training import running
from freeprm.training.settings import load_settings

CONFIGS = REPO / "configs" / "accelerate"


class Run(NamedTuple):
    """One run of `freeprm train`."""

    options: dict[str, Any]
    """As `load_settings` takes them."""
    data: str
    dev: str
    out: str
    stop_at: int | None = None
    """The step at which it is interrupted."""


def launch_runs(runs: list[Run], config: str, file: Path) -> None:
    """Do runs one after another in two processes; `file` is written to tell them which."""
    file.write_text(json.dumps(runs))
    launch(Path(__file__), str(file), config=config)


def launch(script: Path, *arguments: str, config: str) -> None:
    """Run a script in two processes that train together as a file of configs/accelerate says, in float32."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", f"--config_file={CONFIGS / config}.yaml",
        "--num_processes=2", "--main_process_port=0", "--mixed_precision=no", str(script), *arguments,
    ]  # fmt: skip
    paths = os.pathsep.join(path for path in (str(Path(__file__).parent), os.environ.get("PYTHONPATH")) if path)
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr[-3000:]


def shard_on_cpus() -> None:
    """Have accelerate 1.15 shard on CPUs: torch does, but its state asks for FSDP on accelerators alone."""
    initialise = AcceleratorState.__init__

    @wraps(initialise)
    def sharding(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        initialise(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = sharding


class InterruptedRunError(Exception):
    """A run was stopped on purpose."""


class Interrupting(running.ConsoleCallback):
    """Stops a run at a step, in all processes."""

    at: int | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        super().on_step_end(args, state, control, **given)
        if state.global_step == Interrupting.at:
            raise InterruptedRunError


def do(run: Run) -> None:
    """Do a run in this process, or one of those that train together, up to where it is interrupted."""
    Interrupting.at = run.stop_at
    settings = replace(load_settings(options=run.options), out=Path(run.out), dev=[Path(run.dev)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "ConsoleCallback", Interrupting)
        with suppress(InterruptedRunError):
            train.run([Path(run.data)], settings)
            assert run.stop_at is None


def main(file: str) -> None:
    shard_on_cpus()
    for values in json.loads(Path(file).read_text()):
        do(Run(*values))
        state = AcceleratorState()
        assert state.num_processes == 2
        assert (state.distributed_type == DistributedType.FSDP) == (os.environ.get("ACCELERATE_USE_FSDP") == "true")


if __name__ == "__main__":
    main(*sys.argv[1:])
