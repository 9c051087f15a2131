"""What is foretold of a run is what the run then takes."""

import pytest

import tiny
from freeprm.core.flops import ModelShape
from freeprm.models.loading import load_config
from freeprm.training.examples import GroupPreparer
from freeprm.training.forecast import DataSize, forecast
from freeprm.training.running import ConsoleCallback, training_cost
from freeprm.training.settings import TrainSettings, training_arguments
from freeprm.training.setup import set_up_training
from freeprm.types import group_rollouts


@pytest.mark.parametrize(
    ("objective", "how"),
    [("ce", {"num_train_epochs": 2.0, "max_steps": -1}), ("kto", {"max_steps": 4}), ("ipvrm", {"max_steps": 2})],
)
def test_steps_tokens_and_flops_are_those_of_the_run(make_trainer, model_folder, tmp_path, objective, how):
    how = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, **how}
    setup = set_up_training(TrainSettings(model=str(model_folder), objective=objective, trainer=how))
    examples = GroupPreparer(setup, None).examples(group_rollouts(tiny.rollouts(4)))
    arguments = training_arguments(setup.settings, tmp_path)
    expected = forecast(setup, arguments, DataSize.of(examples, arguments))
    trainer = make_trainer(objective=objective, **how)
    trainer.train()
    shape = ModelShape.of(load_config(model_folder))
    cost = training_cost(trainer, shape, examples, held_out=[], reference_tokens=None)
    assert expected.n_steps == trainer.state.global_step
    assert expected.n_tokens == pytest.approx(cost.trained_tokens, rel=0.02)
    assert expected.flops == pytest.approx(cost.flops, rel=0.02)


def test_a_dry_forecast_needs_no_reference(model_folder, tmp_path):
    setup = set_up_training(TrainSettings(model=str(model_folder)))
    examples = GroupPreparer(setup, None).examples(group_rollouts(tiny.rollouts(4)))
    arguments = training_arguments(setup.settings, tmp_path)
    line = str(forecast(setup, arguments, DataSize.of(examples, arguments)))
    assert line.startswith(f"{sum(len(one.encoded) for one in examples)} responses of {len(examples)} prompts, 1 step,")
    assert line.endswith("GB of memory")


def test_the_time_to_go_is_told_once(make_trainer, capsys):
    with ConsoleCallback(n_tokens=10_000_000) as console:
        trainer = make_trainer(max_steps=3)
        trainer.add_callback(console)
        trainer.train()
    assert sum("to go, as step 1 took" in line for line in capsys.readouterr().err.splitlines()) == 1
