"""What is foretold of a run is what the run then takes."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from freeprm.core.flops import ModelShape
from freeprm.models.encoding import Encoded
from freeprm.models.loading import load_config
from freeprm.models.logprobs import token_logprobs
from freeprm.models.routes import prepare
from freeprm.training.examples import GroupPreparer
from freeprm.training.forecast import activation_bytes, forecast
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
    expected = forecast(setup, training_arguments(setup.settings, tmp_path), examples)
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
    line = str(forecast(setup, training_arguments(setup.settings, tmp_path), examples))
    assert line.startswith(f"{sum(len(one.encoded) for one in examples)} responses of {len(examples)} prompts, 1 step,")
    assert line.endswith("GB of memory")


@pytest.mark.parametrize("mixed", [False, True])
def test_activations_are_about_what_autograd_keeps(mixed):
    sizes = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_key_value_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**tiny.sizes(**sizes)))
    ids = torch.randint(0, 300, (100,), dtype=torch.int32).numpy()
    item = Encoded(name="one", ids=ids, n_prompt=40, offsets=np.zeros((60, 2), np.int32))
    prepare(model)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        token_logprobs(model, [item])
    copies = sum(weight.numel() * 2 for weight in model.parameters()) if mixed else 0
    measured = sum(size for place, size in kept.items() if place not in weights) - copies
    expected = activation_bytes(model.config, len(item.ids), itemsize=2 if mixed else 4)
    assert expected == pytest.approx(measured, rel=0.3)


def test_the_time_to_go_is_told_once(make_trainer, capsys):
    with ConsoleCallback(n_tokens=10_000_000) as console:
        trainer = make_trainer(max_steps=3)
        trainer.add_callback(console)
        trainer.train()
    assert sum("to go, as step 1 took" in line for line in capsys.readouterr().err.splitlines()) == 1
