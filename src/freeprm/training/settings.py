"""Settings of a training run, and what fills in the rest: presets, and defaults that fit the objective."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from importlib import import_module, resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainingArguments

from freeprm.errors import ConfigError, needs_extra
from freeprm.io.config import build, read_assignments, read_file, suggestion
from freeprm.io.plugins import load
from freeprm.io.progress import tell
from freeprm.models.reward_config import LOG_RATIO
from freeprm.objectives.base import Defaults
from freeprm.settings import TrainSettings as TrainSettings

KAHAN_OPTIMIZER = "stable_adamw"
"""`trainer.optim` of transformers that is optimi's StableAdamW: AdamW, its update scaled down where gradients leap."""
RECIPE = Defaults(
    source="Yuan et al. 2024, arXiv:2412.01981, and its released code for 8B models",
    beta=0.05,
    trainer={
        "learning_rate": 5e-7, "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "warmup_steps": 0.03, "adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 0.0, "num_train_epochs": 1.0,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8,
    },
)  # fmt: skip
"""Of implicit process reward models; what an objective or a parameterisation does not say for itself."""
_OF_FREEPRM = Defaults(
    source="freeprm",
    trainer={
        "logging_steps": 10, "save_total_limit": 1, "report_to": "none",
        "dataloader_pin_memory": False,  # batches are small, and not of tensors alone
    },
)  # fmt: skip
_PARAMETERISATIONS: Mapping[str, Defaults] = {
    "log_ratio": Defaults(source=RECIPE.source),
    "linear": Defaults(
        source="Ouyang et al. 2022, arXiv:2203.02155, appendix C.2: a reward model's fresh head, 9e-6, batch 64",
        trainer={"learning_rate": 9e-6},
    ),
    "tokens": Defaults(
        source="Wang et al. 2023 (Math-Shepherd), arXiv:2312.08935, section 4.1: reward models, 1e-6, 1 epoch",
        trainer={"learning_rate": 1e-6},
    ),
}
_LORA_RATE = 10.0
_LORA_SOURCE = (
    "10 times that of full fine-tuning: Schulman et al. 2025, LoRA Without Regret; TRL's DPO script, 5e-7 and 5e-6"
)


class Filled(NamedTuple):
    """Settings with nothing left open, and where what was open comes from."""

    settings: TrainSettings
    sources: dict[str, str]
    """Name of a setting that was not given -> who published its value; `trainer.` before its fields."""


def filled(settings: TrainSettings) -> Filled:
    """The settings with defaults that fit where nothing was given: of the objective, the parameterisation, adapters.

    The recipe of implicit process reward models ranks lowest, then what the objective says, then the parameterisation:
    a value's learning rate does not depend on the loss. Adapters take ten times the learning rate. Filled settings
    stay as they are, so whoever trains may fill them.

    Raises:
        PluginError: there is no such objective.
    """
    own: Defaults | None = getattr(load("objectives", settings.objective), "defaults", None)
    layers = [_OF_FREEPRM, RECIPE, *([own] if own else []), _PARAMETERISATIONS[settings.parameterisation]]
    other_scheduler = settings.trainer.get("lr_scheduler_type") not in (None, RECIPE.trainer["lr_scheduler_type"])
    trainer: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.trainer.items():
            # Another scheduler does not take the options of this one.
            if name not in settings.trainer and not (other_scheduler and name == "lr_scheduler_kwargs"):
                trainer[name] = value
                sources[f"trainer.{name}"] = layer.source
    if settings.lora and "learning_rate" in trainer:
        trainer["learning_rate"] *= _LORA_RATE
        sources["trainer.learning_rate"] = _LORA_SOURCE
    beta = settings.beta
    if settings.parameterisation == LOG_RATIO and beta is None:
        by = own if own and own.beta is not None else RECIPE
        beta, sources["beta"] = by.beta, by.source
    return Filled(dataclasses.replace(settings, beta=beta, trainer={**trainer, **settings.trainer}), sources)


def load_settings(
    *,
    options: Mapping[str, Any],
    preset: str | None = None,
    file: Path | None = None,
    assignments: Sequence[str] = (),
) -> TrainSettings:
    """Settings from their layers: preset < file < options < assignments; training fills what they leave open.

    Args:
        options: named options that were given, e.g. {"beta": 0.1}.
        preset: a name in `preset_names()`; its `[objectives.NAME]` table applies to that objective.
        file: TOML or YAML.
        assignments: `name=value`, with `trainer.` before a field of TrainingArguments.

    Raises:
        ConfigError: an unknown name or a bad value; says which.
    """
    layers = _layers(options=options, preset=preset, file=file, assignments=assignments)
    settings = build(TrainSettings, layers.values())
    if layers.get(f"preset {preset}, {NO_BFLOAT16}") and settings.trainer.get("bf16") is False:
        tell(
            f"preset {preset} computes in float32 {NO_BFLOAT16}; with --set trainer.bf16=true in bfloat16 all the same"
        )
    return settings


def given_by(
    *, options: Mapping[str, Any], preset: str | None = None, file: Path | None = None, assignments: Sequence[str] = ()
) -> dict[str, str]:
    """Name of each setting that a layer of `load_settings` gives -> the layer whose value counts."""
    layers = _layers(options=options, preset=preset, file=file, assignments=assignments)
    return {name: layer for layer, values in layers.items() for name in named(values)}


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names, the fields of `trainer` one by one: {"trainer.learning_rate": 5e-7, ...}."""
    trainer = values.get("trainer", {})
    fields = trainer.items() if isinstance(trainer, Mapping) else ()
    rest = {name: value for name, value in values.items() if name != "trainer"}
    return {**rest, **{f"trainer.{name}": value for name, value in fields}}


def _layers(
    *, options: Mapping[str, Any], preset: str | None, file: Path | None, assignments: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """What gives settings -> the settings that it gives; what ranks higher comes later."""
    given = {str(file): read_file(file) if file else {}, "option": options, "--set": read_assignments(assignments)}
    above = {key: value for layer in given.values() for key, value in layer.items()}
    objective = above.get("objective", "ce")
    common, special = _preset_layers(preset, objective) if preset else ({}, {})
    rate = {**named(common), **named(special)}.get("trainer.learning_rate")
    of_adapters = {"trainer": {"learning_rate": rate * _LORA_RATE}} if rate and above.get("lora") else {}
    exact = {"trainer": {"bf16": False}} if named(common).get("trainer.bf16") and not multiplies_bfloat16() else {}
    return {
        f"preset {preset}": common, f"preset {preset}, {NO_BFLOAT16}": exact, f"preset {preset}, {objective}": special,
        f"preset {preset}, times {_LORA_RATE:g} for adapters": of_adapters, **given,
    }  # fmt: skip


NO_BFLOAT16 = "where nothing multiplies bfloat16"


def multiplies_bfloat16() -> bool:
    """Whether the device that training takes by itself multiplies bfloat16 faster than float32: a processor without
    instructions for it makes float32 of both factors first."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.accelerator.is_available():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def preset_names() -> list[str]:
    """The presets that come with freeprm."""
    return sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))


_PRESETS = resources.files("freeprm.assets") / "presets"


def _preset_layers(name: str, objective: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a preset says for all objectives, and for one."""
    if name not in preset_names():
        raise ConfigError(
            f"preset {name!r}: there is none.{suggestion(name, preset_names())} There are {', '.join(preset_names())}"
        )
    with resources.as_file(_PRESETS / f"{name}.toml") as path:
        values = read_file(path)
    special = values.pop("objectives", {})
    return values, special.get(objective, {})


def training_arguments(settings: TrainSettings, out: Path, *, evaluates: bool = False) -> TrainingArguments:
    """The arguments of `transformers.Trainer`, with the settings filled; checkpoints go to `out`.

    Args:
        evaluates: there are held-out responses; they are evaluated on once an epoch unless the settings say otherwise.

    Raises:
        ConfigError: an argument that transformers refuses.
        MissingExtraError: adapters, a logger or an optimizer that is not installed.
    """
    given = {**({"eval_strategy": "epoch"} if evaluates else {}), **filled(settings).settings.trainer}
    if given.get("bf16") and not torch.accelerator.is_available():
        given.setdefault("use_cpu", True)  # transformers wants it given
    if not evaluates and given.get("eval_strategy", "no") != "no":
        raise ConfigError(
            f"trainer.eval_strategy: is {given['eval_strategy']!r}, but there is nothing to evaluate on; give graded "
            "rollouts with --dev"
        )
    for wanted, setting, package, extra in (
        (settings.lora > 0, "lora", "peft", "lora"),
        ("tensorboard" in given.get("report_to", ()), "trainer.report_to", "tensorboard", "tensorboard"),
        (given.get("optim") == KAHAN_OPTIMIZER, "trainer.optim", "optimi", "optim"),
    ):
        with needs_extra(extra, setting):
            if wanted:
                import_module(package)
    try:
        return TrainingArguments(output_dir=str(out), seed=settings.seed, remove_unused_columns=False, **given)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(f"trainer: {error}") from error


def prompts_per_step(arguments: TrainingArguments, *, n_processes: int | None = None) -> int:
    """Prompts, or groups of one, in a step of the optimizer, over all processes; those that there are, unless their
    number is given."""
    share = int(arguments.train_batch_size * arguments.gradient_accumulation_steps)
    return share * (n_processes or arguments.world_size)


def n_steps(arguments: TrainingArguments, *, n_examples: int, n_processes: int | None = None) -> int:
    """Steps of the optimizer that so many examples give, over all processes (those that there are, unless their number
    is given) and epochs."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches: int = math.ceil(n_examples / (arguments.train_batch_size * (n_processes or arguments.world_size)))
    return math.ceil(arguments.num_train_epochs * math.ceil(batches / arguments.gradient_accumulation_steps))
