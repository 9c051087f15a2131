"""A trainer over the toy task, with any model, objective and arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import device, nn
from transformers import TrainingArguments

import tiny
from freeprm.io.plugins import load
from freeprm.objectives.base import Objective
from freeprm.training.batches import Example, reward_of
from freeprm.training.examples import GroupPreparer
from freeprm.training.policy import load_policy
from freeprm.training.settings import TrainSettings
from freeprm.training.setup import set_up_training
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Rollout, group_rollouts

MakeTrainer = Callable[..., GroupTrainer]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that training starts from, and the reference."""
    return tiny.save(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="session")
def examples_of(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Example]]:
    """Examples of rollouts, with the reference's log-probabilities; keywords are settings."""
    cache = tmp_path_factory.mktemp("cache")

    def make(rollouts: Sequence[Rollout], objective: Objective, **how: Any) -> list[Example]:
        setup = set_up_training(TrainSettings(model=str(model_folder), **how))
        own = replace(setup, objective=objective, reward=reward_of(setup.settings, objective))
        return GroupPreparer(own, cache).examples(group_rollouts(rollouts))

    return make


@pytest.fixture
def make_trainer(examples_of: Callable[..., list[Example]], model_folder: Path, tmp_path: Path) -> MakeTrainer:
    """A trainer that takes steps of plain gradient descent without clipping unless told otherwise.

    `how` are settings that decide what the reward is.
    """

    def make(
        rollouts: Sequence[Rollout] | None = None,
        *,
        objective: str = "ce",
        model: nn.Module | None = None,
        dev: Sequence[Rollout] = (),
        how: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> GroupTrainer:
        chosen: Objective = load("objectives", objective)()
        settings = TrainSettings(model=str(model_folder), beta=0.5, **(how or {}))
        reward = reward_of(settings, chosen)
        if model is None:
            model = load_policy(settings, model_folder, device("cpu"), valuation=reward.valuation)
        given = {
            "learning_rate": 1e-3, "optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 4, "max_steps": 1, "logging_steps": 1, "save_strategy": "no", "seed": 0,
            "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False, "use_cpu": True, **arguments,
        }  # fmt: skip
        return GroupTrainer(
            model,
            TrainingArguments(output_dir=str(tmp_path / "out"), remove_unused_columns=False, **given),
            objective=chosen,
            reward=reward,
            train_dataset=examples_of(tiny.rollouts(4) if rollouts is None else rollouts, chosen, **(how or {})),
            eval_dataset=examples_of(dev, chosen, **(how or {})) if dev else None,
        )

    return make
