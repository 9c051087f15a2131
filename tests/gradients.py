"""The gradients of a trainer's steps; as a script, those of several processes: `gradients.py GIVEN FOUND`."""

import sys
import tempfile
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

import tiny
from freeprm.training.trainer import GroupTrainer


class Gradients(TrainerCallback):
    """Notes the gradient of each step just before it is taken, as one vector."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        parameters = given["model"].parameters()
        self.steps.append(torch.cat([parameter.grad.flatten() for parameter in parameters]).clone())


def of_steps(trainer: GroupTrainer, *, resume_from_checkpoint: str | None = None) -> list[Tensor]:
    """Train; the gradient of each step."""
    noting = Gradients()
    trainer.add_callback(noting)
    trainer.train(resume_from_checkpoint=resume_from_checkpoint)
    return noting.steps


def of_all_examples(trainer: GroupTrainer, *, batch_size: int) -> Tensor:
    """The gradient of one step over all examples, in batches of so many in each process."""
    args = trainer.args
    args.per_device_train_batch_size = trainer._train_batch_size = batch_size
    args.gradient_accumulation_steps = len(trainer.train_dataset) // (args.world_size * batch_size)
    (found,) = of_steps(trainer)
    return found


def main(given: str, found: str) -> None:
    """Args: `given` holds (train_dataset, objective, reward) by name, `found` is to hold a gradient by name."""
    gradients = {}
    for name, (examples, objective, reward) in torch.load(given, weights_only=False).items():
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(), remove_unused_columns=False, max_steps=1, report_to="none", use_cpu=True,
            dataloader_pin_memory=False, max_grad_norm=0.0, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = GroupTrainer(
            tiny.language_model(seed=3), arguments, objective=objective, reward=reward, train_dataset=examples
        )
        gradients[name] = of_all_examples(trainer, batch_size=1)
    assert arguments.world_size == 2
    if arguments.process_index == 0:
        torch.save(gradients, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
