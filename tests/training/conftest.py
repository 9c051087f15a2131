"""A trainer over the toy task, with any model, objective and arguments."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from torch import nn
from transformers import TrainingArguments

import tiny
from freeprm.io.plugins import load
from freeprm.objectives.base import Objective
from freeprm.training.examples import Example, Examples
from freeprm.training.preparing import Preparer
from freeprm.training.settings import TrainSettings
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Rollout, group_rollouts

MakeTrainer = Callable[..., GroupTrainer]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that training starts from, and the reference."""
    return tiny.save(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="session")
def examples_of(
    model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[Rollout], Objective], list[Example]]:
    """Examples of rollouts, with the reference's log-probabilities."""
    cache = tmp_path_factory.mktemp("cache")

    def make(rollouts: Sequence[Rollout], objective: Objective) -> list[Example]:
        preparer = Preparer(TrainSettings(model=str(model_folder)), model_folder, cache, PartialState())
        return preparer.examples(
            group_rollouts(rollouts), needs_kl=objective.needs_kl, needs_pairs=objective.needs_pairs, counts=Counter()
        )

    return make


@pytest.fixture
def make_trainer(examples_of: Callable[..., list[Example]], tmp_path: Path) -> MakeTrainer:
    """A trainer that takes steps of plain gradient descent without clipping unless told otherwise."""

    def make(
        rollouts: Sequence[Rollout] | None = None,
        *,
        objective: str = "ce",
        model: nn.Module | None = None,
        dev: Sequence[Rollout] = (),
        **arguments: Any,
    ) -> GroupTrainer:
        chosen: Objective = load("objectives", objective)()
        given = {
            "learning_rate": 1e-3, "optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 4, "max_steps": 1, "logging_steps": 1, "save_strategy": "no", "seed": 0,
            "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False, "use_cpu": True, **arguments,
        }  # fmt: skip
        return GroupTrainer(
            model or tiny.language_model(),
            TrainingArguments(output_dir=str(tmp_path / "out"), remove_unused_columns=False, **given),
            objective=chosen,
            beta=0.5,
            train_dataset=Examples(examples_of(tiny.rollouts(4) if rollouts is None else rollouts, chosen)),
            eval_dataset=Examples(examples_of(dev, chosen)) if dev else None,
        )

    return make
