"""Checkpoints: on disk before older ones go, gone on from if they are whole, deleted when the run is finished."""

import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, OPTIMIZER_NAME_BIN, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from freeprm.errors import RunFolderError
from freeprm.io.rows import sync_path


class DurableTrainer(Trainer):
    """`transformers.Trainer`, or one between it and the class that inherits, whose checkpoints outlive a power loss."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The parent's; none behind the last step.

        The parent looks at the number of steps after a step only, and would take one too many where a run goes on from
        its last checkpoint.
        """
        if 0 < self.state.max_steps <= self.state.global_step:
            self.control.should_training_stop = True
            return [], None
        found: tuple[list[Any], Tensor | int | None] = super().get_batch_samples(epoch_iterator, num_batches, device)
        return found

    def _save_rng_state(self, output_dir: str) -> None:
        """The parent's, which is the last before the trainer's state: whose presence tells that the rest is on disk."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # all have written their parts
        if self.args.should_save:
            folder = Path(output_dir)
            for path in (*folder.rglob("*"), folder):
                sync_path(path)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The parent's; older checkpoints go when this one is on disk."""
        most, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = most
        if not self.args.should_save:
            return
        run = Path(str(self.args.output_dir))
        folder = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        for path in (folder / TRAINER_STATE_NAME, folder, run):
            sync_path(path)
        best = self.state.best_model_checkpoint
        older = sorted(run.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=step_of)
        for path in older[: -most if most else 0]:
            if best is None or path.resolve() != Path(best).resolve():
                shutil.rmtree(path)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state is the last file of one.

    One that was damaged afterwards is passed over with a warning; a file that was cut off is noticed, others are not.
    """
    ended = [path.parent for path in out.glob("checkpoint-*/trainer_state.json") if not _damage(path)]
    for folder in sorted(ended, key=step_of, reverse=True):
        damaged = next((file for file in sorted(folder.rglob("*")) if file.is_file() and _damage(file)), None)
        if damaged is None:
            return str(folder)
        warnings.warn(
            f"{damaged}: is damaged ({_damage(damaged)}); the run goes on from an earlier checkpoint or from its start",
            stacklevel=2,
        )
    return None


def check_sharding(checkpoint: Path, *, sharded: bool) -> None:
    """Refuse a checkpoint whose optimizer is kept in another way than it would be read.

    Raises:
        RunFolderError: it was written by FSDP or DeepSpeed and is to be gone on from without, or the other way round.
    """
    others = (OPTIMIZER_NAME,) if sharded else (OPTIMIZER_NAME_BIN, "optimizer_*", "global_step*")
    if any(found for pattern in others for found in checkpoint.glob(pattern)):
        before, now = ("without", "by") if sharded else ("by", "without")
        raise RunFolderError(
            f"{checkpoint}: was written {before} FSDP or DeepSpeed, and the run would go on {now} them; start it by "
            "the same file of configs/accelerate as before, with any number of processes, or choose another --out"
        )


def _damage(file: Path) -> str:
    """What is wrong with a file of a checkpoint; empty if nothing is noticed."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
        elif file.suffix in (".pt", ".pth", ".bin"):
            with zipfile.ZipFile(file):
                pass
    except (ValueError, OSError, SafetensorError, zipfile.BadZipFile) as error:
        return str(error)
    return ""


def drop_checkpoints(out: Path) -> None:
    """Delete the checkpoints of a finished run: its model is saved, and they are three times as large."""
    for folder in out.glob("checkpoint-*"):
        shutil.rmtree(folder)


@contextmanager
def naming_a_full_disk(out: Path) -> Iterator[None]:
    """Say that the disk is full where torch says that a file ended early."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (free := shutil.disk_usage(out).free) >= _FULL:
            raise
        raise RunFolderError(
            f"{out}: the disk is full ({free >> 20} MB free) where a checkpoint was to be written, which takes three "
            "times the weights. Make room; the same command goes on from the last whole checkpoint"
        ) from error


_FULL = 16 << 20
"""Bytes that are free on a full disk, at most."""
