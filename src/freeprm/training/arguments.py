"""What the parent trainer is told: its arguments, and the checkpoint to go on from."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import TrainingArguments

from freeprm.errors import ConfigError
from freeprm.training.policy import KAHAN_OPTIMIZER
from freeprm.training.settings import TrainSettings


def training_arguments(settings: TrainSettings, out: Path, *, evaluates: bool) -> TrainingArguments:
    """The arguments of `transformers.Trainer`.

    Args:
        settings: of the training run.
        out: where checkpoints go.
        evaluates: there are held-out responses; they are evaluated on once an epoch unless the settings say otherwise.

    Raises:
        ConfigError: an argument that transformers refuses, or a logger or optimizer that is not installed.
    """
    given = {**({"eval_strategy": "epoch"} if evaluates else {}), **settings.trainer}
    if given.get("bf16") and not torch.accelerator.is_available():
        given.setdefault("use_cpu", True)  # transformers wants it said
    if not evaluates and given.get("eval_strategy", "no") != "no":
        raise ConfigError(
            f"trainer.eval_strategy: is {given['eval_strategy']!r}, but there is nothing to evaluate on; give graded "
            "rollouts with --dev"
        )
    if "tensorboard" in given.get("report_to", ()) and find_spec("tensorboard") is None:
        raise ConfigError(
            "trainer.report_to: tensorboard is not installed; install it, or choose another logger or none with "
            "--set trainer.report_to=none"
        )
    if given.get("optim") == KAHAN_OPTIMIZER and find_spec("optimi") is None:
        raise ConfigError(
            f"trainer.optim: {KAHAN_OPTIMIZER} is of torch-optimi, which is not installed; install 'freeprm[optim]'"
        )
    try:
        return TrainingArguments(output_dir=str(out), seed=settings.seed, remove_unused_columns=False, **given)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(f"trainer: {error}") from error


def n_steps(arguments: TrainingArguments, *, n_examples: int) -> int:
    """Steps of the optimizer that so many examples give, over all processes and epochs."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches: int = math.ceil(n_examples / (arguments.train_batch_size * arguments.world_size))
    return math.ceil(arguments.num_train_epochs * math.ceil(batches / arguments.gradient_accumulation_steps))


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint that was written to its end; the trainer's state is the last file of one."""
    whole = [path.parent for path in out.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
