import importlib.util
from pathlib import Path

import pytest
import torch

import freeprm.training.arguments as module
from freeprm.errors import ConfigError
from freeprm.training.arguments import last_checkpoint, n_steps, training_arguments
from freeprm.training.settings import filled, load_settings


def arguments(out: Path, *assignments: str, evaluates: bool = False):
    settings = load_settings(options={"model": "m"}, assignments=[*assignments, "trainer.use_cpu=true"])
    return training_arguments(filled(settings).settings, out, evaluates=evaluates)


def test_the_recipe_and_the_settings_reach_the_trainer(tmp_path):
    made = arguments(tmp_path, "trainer.weight_decay=0.1", "seed=7")
    assert made.learning_rate == 5e-7
    assert made.weight_decay == 0.1
    assert made.seed == 7
    assert made.output_dir == str(tmp_path)
    assert made.report_to == ["tensorboard"]


def test_another_scheduler_does_not_get_the_recipes_options(tmp_path):
    assert not arguments(tmp_path, "trainer.lr_scheduler_type=linear").lr_scheduler_kwargs


def test_held_out_responses_are_evaluated_on_once_an_epoch_unless_told_otherwise(tmp_path):
    assert arguments(tmp_path, evaluates=True).eval_strategy == "epoch"
    assert arguments(tmp_path, "trainer.eval_strategy=steps", evaluates=True).eval_strategy == "steps"
    with pytest.raises(ConfigError, match="nothing to evaluate on; give graded rollouts with --dev"):
        arguments(tmp_path, "trainer.eval_strategy=steps")


def test_a_value_that_transformers_refuses_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="trainer"):
        arguments(tmp_path, "trainer.lr_scheduler_type=bent")


def test_a_logger_that_is_not_installed_is_named(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(ConfigError, match=r"--set trainer\.report_to=none"):
        arguments(tmp_path)
    assert arguments(tmp_path, "trainer.report_to=none").report_to == []


def test_an_optimizer_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "optimi" else found(name))
    with pytest.raises(ConfigError, match=r"torch-optimi, which is not installed; install 'freeprm\[optim\]'"):
        arguments(tmp_path, "trainer.optim=stable_adamw")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is of machines without a GPU")
def test_bfloat16_needs_no_other_word_where_there_is_no_gpu(tmp_path):
    settings = load_settings(options={"model": "m"}, assignments=["trainer.bf16=true"])
    made = training_arguments(settings, tmp_path, evaluates=False)
    assert (made.bf16, made.use_cpu) == (True, True)


def test_steps_are_counted_before_training(tmp_path):
    made = arguments(tmp_path, "trainer.num_train_epochs=3")  # one group a batch, 8 batches a step
    assert n_steps(made, n_examples=17) == 9  # 8, 8 and 1, three times over
    assert n_steps(arguments(tmp_path, "trainer.max_steps=5"), n_examples=17) == 5


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((5, '{"global_step": 5}'), (10, '{"global_step": 10}'), (15, '{"global_'), (20, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
