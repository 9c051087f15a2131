"""Settings of a training run: their layers, presets, and what is refused before anything is loaded."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from freeprm.errors import ConfigError, MissingExtraError
from freeprm.objectives.base import Defaults
from freeprm.training.settings import (
    RECIPE,
    TrainSettings,
    filled,
    given_by,
    load_settings,
    n_steps,
    preset_names,
    training_arguments,
)


def load(*assignments: str, preset: str | None = None, file: Path | None = None, **options: Any) -> TrainSettings:
    return load_settings(options={"model": "m", **options}, preset=preset, file=file, assignments=assignments)


def test_without_anything_said_it_is_the_released_recipe():
    settings, sources = filled(load())
    assert (settings.objective, settings.beta, settings.with_reference) == ("ce", 0.05, True)
    assert RECIPE.trainer.items() <= settings.trainer.items()
    assert {sources["beta"], *(sources[f"trainer.{name}"] for name in RECIPE.trainer)} == {RECIPE.source}


@pytest.mark.parametrize(
    ("how", "beta", "rate", "epochs"),
    [
        ({}, 0.05, 5e-7, 1.0),
        ({"objective": "dpo"}, 0.05, 5e-7, 1.0),
        ({"objective": "ipvrm"}, 10.0, 5e-7, 3.0),  # arXiv:2604.13197
        ({"objective": "simpo"}, 2.0, 5e-7, 1.0),  # arXiv:2405.14734
        ({"parameterisation": "linear"}, None, 9e-6, 1.0),  # arXiv:2203.02155
        ({"parameterisation": "tokens", "objective": "step_ce"}, None, 1e-6, 1.0),  # arXiv:2312.08935
        ({"parameterisation": "linear", "objective": "ipvrm"}, None, 9e-6, 3.0),
        ({"lora": 16}, 0.05, 5e-6, 1.0),  # ten times
        ({"lora": 16, "objective": "ipvrm"}, 10.0, 5e-6, 3.0),
        ({"lora": 16, "parameterisation": "linear"}, None, 9e-5, 1.0),
    ],
)
def test_defaults_are_of_the_objective_the_parameterisation_and_adapters(
    how: dict[str, Any], beta: float | None, rate: float, epochs: float
):
    settings = filled(load(**how)).settings
    assert settings == filled(TrainSettings(model="m", **how)).settings  # from Python as from the command line
    assert settings.beta == beta
    assert settings.trainer["learning_rate"] == pytest.approx(rate)
    assert settings.trainer["num_train_epochs"] == epochs


def test_what_is_said_ranks_above_every_default_and_has_no_other_source():
    said = ["trainer.learning_rate=1e-5", "trainer.num_train_epochs=2", "beta=0.1"]
    settings, sources = filled(load(*said, objective="ipvrm", lora=16))
    assert (settings.beta, settings.trainer["learning_rate"], settings.trainer["num_train_epochs"]) == (0.1, 1e-5, 2.0)
    assert {"beta", "trainer.learning_rate", "trainer.num_train_epochs"}.isdisjoint(sources)
    assert filled(settings) == (settings, {})


class Own:
    """Somebody's objective, with defaults of its own."""

    defaults = Defaults(source="a paper", beta=3.0, trainer={"learning_rate": 1e-6})


def test_an_objective_brings_its_defaults_with_it_wherever_it_is_from():
    settings, sources = filled(load(objective=f"{__name__}:Own"))
    assert (settings.beta, settings.trainer["learning_rate"]) == (3.0, 1e-6)
    assert sources["beta"] == sources["trainer.learning_rate"] == "a paper"
    assert sources["trainer.warmup_steps"] == RECIPE.source


def test_each_setting_that_is_given_is_told_with_what_gives_it(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("beta = 2.0\n[trainer]\nlearning_rate = 2.0\n", encoding="utf-8")
    given = given_by(
        options={"model": "m", "objective": "dpo"}, preset="embedded", file=file, assignments=["trainer.max_steps=3"]
    )
    assert given["beta"] == given["trainer.learning_rate"] == str(file)
    assert given["splitter"] == given["trainer.logging_steps"] == "preset embedded"
    assert (given["objective"], given["trainer.max_steps"]) == ("option", "--set")
    assert "seed" not in given
    assert given_by(options={"model": "m", "objective": "dpo"}, preset="embedded")["trainer.learning_rate"] == (
        "preset embedded, dpo"
    )


def test_layers_rank_recipe_preset_file_options_assignments(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("beta = 2.0\nseed = 2\n[trainer]\nlearning_rate = 2.0\nnum_train_epochs = 2\n", encoding="utf-8")
    settings = filled(load("seed=4", "trainer.num_train_epochs=4", preset="embedded", file=file, seed=3)).settings
    assert settings.trainer["adam_beta2"] == RECIPE.trainer["adam_beta2"]
    assert settings.splitter == "step_markers"  # the preset's
    assert (settings.beta, settings.trainer["learning_rate"]) == (2.0, 2.0)  # the file's
    assert (settings.seed, settings.trainer["num_train_epochs"]) == (4, 4.0)  # the assignments'


def test_a_preset_has_its_own_settings_for_an_objective_wherever_that_is_named(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text("objective: dpo\n", encoding="utf-8")
    common, *named = (
        settings.trainer["learning_rate"]
        for settings in (
            load(preset="embedded"),
            load(preset="embedded", objective="dpo"),
            load("objective=dpo", preset="embedded"),
            load(preset="embedded", file=file),
        )
    )
    assert len(set(named)) == 1
    assert named[0] != common


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("objective", ["ce", "dpo", "kto", "nca"])
def test_every_preset_loads_for_every_objective(name: str, objective: str):
    assert load(preset=name, objective=objective).objective == objective


def test_the_preset_of_small_models_has_their_rate_and_leaves_beta_to_the_objective(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("freeprm.training.settings.multiplies_bfloat16", lambda: True)
    settings = filled(load(preset="small")).settings
    assert (settings.trainer["learning_rate"], settings.trainer["bf16"], settings.beta) == (2e-5, True, 0.05)
    assert settings.trainer["gradient_accumulation_steps"] == RECIPE.trainer["gradient_accumulation_steps"]
    assert filled(load(preset="small", objective="ipvrm")).settings.beta == 10.0


def test_adapters_take_ten_times_the_rate_of_a_preset():
    assert load(preset="small", lora=16).trainer["learning_rate"] == pytest.approx(2e-4)
    assert load("lora=16", preset="embedded", objective="kto").trainer["learning_rate"] == pytest.approx(1.5e-3)
    assert load("trainer.learning_rate=1e-5", preset="small", lora=16).trainer["learning_rate"] == 1e-5
    origin = given_by(options={"model": "m", "lora": 16}, preset="small")["trainer.learning_rate"]
    assert origin == "preset small, times 10 for adapters"


def test_a_preset_computes_in_float32_where_nothing_multiplies_bfloat16_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("freeprm.training.settings.multiplies_bfloat16", lambda: False)
    assert load(preset="small").trainer == {"learning_rate": 2e-5, "bf16": False}
    assert "preset small computes in float32" in capsys.readouterr().err
    origin = given_by(options={"model": "m"}, preset="small")["trainer.bf16"]
    assert origin == "preset small, where nothing multiplies bfloat16"
    assert load("trainer.bf16=true", preset="small").trainer["bf16"] is True
    assert load(preset="embedded").trainer.get("bf16") is None
    assert capsys.readouterr().err == ""


def test_an_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"preset 'embeded': there is none\. Did you mean 'embedded'\?"):
        load(preset="embeded")


def test_fields_of_training_arguments_take_the_types_they_have():
    trainer = load(
        "trainer.learning_rate='1e-4'", "trainer.bf16=False", "trainer.report_to=none", "trainer.max_steps=3"
    ).trainer
    assert trainer["learning_rate"] == 1e-4
    assert trainer["bf16"] is False
    assert trainer["report_to"] == "none"
    assert trainer["max_steps"] == 3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("trainer.learning_rat=1", r"trainer\.learning_rat: no such field of .*Did you mean 'learning_rate'\?"),
        ("trainer.learning_rate=fast", r"trainer\.learning_rate: is 'fast'; input should be a valid number"),
        ("trainer.bf16=perhaps", r"trainer\.bf16: is 'perhaps'; input should be a valid boolean"),
        ("trainer.max_steps=1.5", r"trainer\.max_steps: is 1\.5; input should be a valid integer"),
        ("trainer.output_dir=x", r"trainer\.output_dir: is decided by freeprm; use --out"),
        ("trainer.seed=1", r"trainer\.seed: is decided by freeprm; use --seed"),
        ("beta=0", "beta: is 0.0; expected a number above 0"),
        ("beta=nan", "beta: is nan; expected a number above 0"),
        ("beta=inf", "beta: is inf; expected a number above 0"),
        ("group_size=0", "group_size: is 0; expected at least 1"),
        ("max_pairs=0", "max_pairs: is 0; expected at least 1"),
        ("lora=-1", "lora: is -1; expected at least 0"),
        ("seed=-1", "seed: is -1; expected at least 0"),
        ("splitter=step_marker", "splitter 'step_marker': .*Did you mean 'step_markers'"),
        ("too_long=cut", "too_long: is 'cut'; expected one of error, exclude, truncate"),
        ("parameterisation=head", "parameterisation: is 'head'; expected one of log_ratio, linear, tokens"),
        ("read_at=steps", "read_at: is 'steps', but a log-ratio is of every token"),
        ("step_labels=soft!", "step_labels: is 'soft!'; expected one of hard, soft"),
        ("judgement=+", r"judgement: is '\+'; input should be a valid tuple"),
        ("objectiv=ce", "objectiv: no such setting. Did you mean 'objective'"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_by_name(assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load(assignment)


def test_settings_made_in_python_are_checked_and_typed_like_those_of_the_command_line():
    with pytest.raises(ConfigError, match="beta: is -1; expected a number above 0"):
        TrainSettings(model="m", beta=-1)
    with pytest.raises(ConfigError, match=r"trainer\.learning_rat: no such field"):
        TrainSettings(model="m", trainer={"learning_rat": 1})
    assert TrainSettings(model="m", trainer={"learning_rate": "1e-4"}).trainer == {"learning_rate": 1e-4}
    assert TrainSettings(model="m", parameterisation="linear", beta=0.5).beta is None


def test_a_model_must_be_named():
    with pytest.raises(ConfigError, match="model: is not given"):
        load_settings(options={})


def test_a_reference_is_refused_where_training_is_to_be_without():
    with pytest.raises(ConfigError, match="reference: is 'r', but training is to be without one"):
        load(reference="r", with_reference=False)


def test_another_scheduler_does_not_get_the_options_of_the_recipes():
    def trainer(*assignments: str) -> Any:
        return filled(load(*assignments)).settings.trainer

    assert "lr_scheduler_kwargs" not in trainer("trainer.lr_scheduler_type=linear")
    assert trainer("trainer.lr_scheduler_type=cosine_with_min_lr")["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}
    own = trainer("trainer.lr_scheduler_type=cosine_warmup_with_min_lr", "trainer.lr_scheduler_kwargs.min_lr_rate=0.1")
    assert own["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}


def test_tokens_may_be_the_splitter():
    assert load("splitter=tokens").splitter == "tokens"


def test_other_sources_are_tables_of_shares_in_every_layer(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text('[mix]\n"runs/code.jsonl" = 0.2\n[replace]\n"runs/base" = 0.5\n', encoding="utf-8")
    settings = load("replace.runs/base=0.25", file=file, mix={"runs/chat": 0.1})
    assert settings.mix == {"runs/code.jsonl": 0.2, "runs/chat": 0.1}
    assert settings.replace == {"runs/base": 0.25}


def test_no_response_to_a_prompt_is_too_few():
    with pytest.raises(ConfigError, match="responses: is 0; expected at least 1"):
        load(responses=0)


def test_values_have_no_beta_whatever_a_preset_says_and_their_tokens_are_plus_and_minus():
    settings = load(preset="embedded", parameterisation="tokens")
    assert settings.beta is None
    assert settings.judgement == ("+", "-")
    assert load('judgement=["good", "bad"]', parameterisation="tokens").judgement == ("good", "bad")


def arguments(out: Path, *assignments: str, evaluates: bool = False):
    settings = load_settings(options={"model": "m"}, assignments=[*assignments, "trainer.use_cpu=true"])
    return training_arguments(settings, out, evaluates=evaluates)


def test_the_recipe_and_the_settings_reach_the_trainer(tmp_path):
    made = arguments(tmp_path, "trainer.weight_decay=0.1", "seed=7")
    assert made.learning_rate == 5e-7
    assert made.weight_decay == 0.1
    assert made.seed == 7
    assert made.output_dir == str(tmp_path)
    assert made.report_to == []
    assert arguments(tmp_path, "trainer.report_to=tensorboard").report_to == ["tensorboard"]


def test_settings_made_in_python_reach_the_trainer_filled_too(tmp_path):
    made = training_arguments(TrainSettings(model="m", trainer={"use_cpu": True}), tmp_path)
    assert made == arguments(tmp_path)
    assert (made.learning_rate, made.num_train_epochs, made.lr_scheduler_type) == (5e-7, 1.0, "cosine_with_min_lr")


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


@pytest.mark.parametrize(
    ("assignment", "package", "extra"),
    [
        ("trainer.report_to=tensorboard", "tensorboard", "tensorboard"), ("lora=8", "peft", "lora"),
        ("trainer.optim=stable_adamw", "optimi", "optim"),
    ],
)  # fmt: skip
def test_what_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, assignment, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    setting = assignment.partition("=")[0]
    with pytest.raises(MissingExtraError, match=rf"{setting}: .*pip install 'freeprm\[{extra}\]'"):
        arguments(tmp_path, assignment)
    assert arguments(tmp_path).report_to == []


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is of machines without a GPU")
def test_bfloat16_needs_no_other_word_where_there_is_no_gpu(tmp_path):
    settings = load_settings(options={"model": "m"}, assignments=["trainer.bf16=true"])
    made = training_arguments(settings, tmp_path, evaluates=False)
    assert (made.bf16, made.use_cpu) == (True, True)


def test_steps_are_counted_before_training(tmp_path):
    made = arguments(tmp_path, "trainer.num_train_epochs=3")  # one group a batch, 8 batches a step
    assert n_steps(made, n_examples=17) == 9  # 8, 8 and 1, three times over
    assert n_steps(arguments(tmp_path, "trainer.max_steps=5"), n_examples=17) == 5
