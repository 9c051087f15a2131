"""What a training run is told, and the presets that fill it in."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

from freeprm.core.steps import TOKENS, splitter
from freeprm.errors import ConfigError
from freeprm.io.config import build, convert, read_assignments, read_file, suggestion
from freeprm.models.reward_config import LOG_RATIO


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Everything that decides what a training run produces, besides the data."""

    model: str
    """Start of the policy, and its reference unless another is named: a folder, a hub id, or `solver:base`."""
    revision: str | None = None
    """Of a hub model."""
    objective: str = "ce"
    """A file in `freeprm/objectives`, or `package.module:Name`."""
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    """The objective's own settings, e.g. `desirable_weight` of KTO."""
    parameterisation: Literal["log_ratio", "linear", "tokens"] = "log_ratio"
    """What the reward is: beta * log(pi_phi / pi_ref), or a value V that the model says after having read a token: by a
    linear head on the hidden state, or as logit(good) - logit(bad) of two tokens. V is the log-odds of being right."""
    read_at: Literal["steps", "response"] | None = None
    """Where values are trained and read: at the last token of each step, or of the response. By default at the steps
    for objectives on steps, else at the response. Log-ratios have no such places."""
    judgement: tuple[str, str] = ("+", "-")
    """Good and bad, of `tokens`: two texts that are one token each."""
    step_labels: Literal["hard", "soft"] = "hard"
    """For objectives on step labels: the column `step_labels` (true, false), or `step_values` (0 to 1)."""
    beta: float | None = None
    """Reward scale of log-ratios; values have none. By default that of a reward model that is trained on, else 0.05,
    which suits models with hundreds of nats a response: see the warning on reachable rewards."""
    with_reference: bool = True
    """False trains r = beta * log pi_phi, the reference taken as uniform (Table 4)."""
    reference: str | None = None
    """Another frozen reference than `model`; where `model` is a reward model itself, its own is kept unless one is
    named."""
    reference_revision: str | None = None
    """Of a hub reference."""
    mix: Mapping[str, float] = field(default_factory=dict)
    """Other graded rollouts -> their share of the instructions; the inputs have the rest. See docs/preferences.md."""
    replace: Mapping[str, float] = field(default_factory=dict)
    """Other graded rollouts -> the share of each instruction's responses that theirs replace."""
    deduplicate: float | None = None
    """Leave out responses whose 8-gram overlap with an earlier one to the same prompt is so much, above 0 to 1."""
    instructions: float = 1.0
    """Share of the instructions trained on, at random."""
    responses: int | None = None
    """Responses of each instruction trained on, at random; None for all."""
    balance: Literal["none", "dataset", "instruction"] = "none"
    """Drop responses of the majority class until classes are even, over the data or inside each instruction."""
    pairing: Literal["cartesian", "one_to_one"] = "cartesian"
    """For objectives on pairs: every right response with every wrong one, or each with one counterpart."""
    max_pairs: int | None = None
    """At most so many pairs of one instruction."""
    group_size: int = 8
    """Most responses to one prompt in one group; larger groups are divided, classes spread evenly.

    A group is the least that goes through the model at once, so this bounds the memory of a step: with
    `trainer.per_device_train_batch_size` 1 it holds the logits of so many responses. Pairs across parts are lost.
    """
    max_length: int | None = None
    """Tokens of prompt and response; None for the model's context."""
    too_long: Literal["error", "exclude", "truncate"] = "exclude"
    """What happens to longer ones; always counted."""
    splitter: str = "auto"
    """How responses without a column `steps` are cut into steps, by objectives on steps and at scoring."""
    lora: int = 0
    """Rank of LoRA adapters on all linear layers; 0 trains every weight."""
    lora_alpha: int | None = None
    """Defaults to twice the rank."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Of the trained weights. bfloat16 halves the memory; with `trainer.bf16` float32 weights compute in bfloat16."""
    attention: str | None = None
    """An attention implementation of transformers, e.g. flash_attention_2."""
    token_budget: int | None = None
    """Tokens in one batch of the reference's pass, padding included; by default 4,096 on the CPU, 16,384 on a GPU."""
    stored_reference: bool = True
    """Where rollouts bring the reference's log-probabilities from sampling, take those; see `stored_logprobs`."""
    trust_remote_code: bool = False
    """Run code that the model folder brings along."""
    template_date: str | None = None
    """The day (YYYY-MM-DD) that a chat template tells which would tell the day of its use; by default 2024-07-26, or
    what it told when the model was trained before."""
    seed: int = 0
    """Of every random choice."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Any field of `transformers.TrainingArguments`. A batch counts groups: 8 groups of 8 are 64 responses."""


# The released recipe for an 8B model: batch of 64, one epoch, cosine to 10 %, warm-up 3 %, Adam (0.9, 0.95).
RECIPE: Mapping[str, Any] = {
    "learning_rate": 5e-7,
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "warmup_steps": 0.03,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "weight_decay": 0.0,
    "num_train_epochs": 1.0,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "logging_steps": 10,
    "save_total_limit": 1,
    "dataloader_pin_memory": False,  # batches are small, and not of tensors alone
    "report_to": ["tensorboard"],
}


_DECIDED = {
    "output_dir": "use --out",
    "seed": "use --seed",
    "remove_unused_columns": "batches have no columns",
    "resume_from_checkpoint": "the same command resumes",
}


def load_settings(
    *,
    options: Mapping[str, Any],
    preset: str | None = None,
    file: Path | None = None,
    assignments: Sequence[str] = (),
) -> TrainSettings:
    """Settings from their layers: recipe < preset < file < options < assignments.

    Args:
        options: named options that were given, e.g. {"beta": 0.1}.
        preset: a name in `preset_names()`; its `[objective.NAME]` table applies to that objective.
        file: TOML or YAML.
        assignments: `name=value`, with `trainer.` before a field of TrainingArguments.

    Raises:
        ConfigError: an unknown name or a bad value; says which.
    """
    given = [read_file(file) if file else {}, options, read_assignments(assignments)]
    objective = {key: value for layer in given for key, value in layer.items()}.get("objective", "ce")
    layers = [*_preset_layers(preset, objective), *given]
    settings = build(TrainSettings, [{"trainer": _recipe(layers)}, *layers])
    _check(settings)
    beta = settings.beta if settings.parameterisation == LOG_RATIO else None
    return dataclasses.replace(settings, beta=beta, trainer=_checked_arguments(settings.trainer))


def preset_names() -> list[str]:
    """The presets that come with freeprm."""
    folder = resources.files("freeprm.assets") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _preset_layers(name: str | None, objective: str) -> list[dict[str, Any]]:
    if name is None:
        return []
    if name not in preset_names():
        raise ConfigError(
            f"preset {name!r}: there is none.{suggestion(name, preset_names())} There are {', '.join(preset_names())}"
        )
    with resources.as_file(resources.files("freeprm.assets") / "presets" / f"{name}.toml") as path:
        values = read_file(path)
    special = values.pop("objectives", {})
    return [values, special.get(objective, {})]


def _recipe(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The recipe; without the options of its scheduler where another one is chosen, which does not take them."""
    tables = [table for layer in layers if isinstance(table := layer.get("trainer"), Mapping)]
    chosen = {key: value for table in tables for key, value in table.items()}.get("lr_scheduler_type")
    other = chosen not in (None, RECIPE["lr_scheduler_type"])
    return {key: value for key, value in RECIPE.items() if not (other and key == "lr_scheduler_kwargs")}


def _check(settings: TrainSettings) -> None:
    if settings.beta is not None and not 0 < settings.beta < math.inf:
        raise ConfigError(f"beta: is {settings.beta}; expected a number above 0")
    least = {
        "group_size": 1, "token_budget": 1, "lora": 0, "lora_alpha": 1, "max_length": 2, "max_pairs": 1, "responses": 1,
        "seed": 0,
    }  # fmt: skip
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and value < bound:
            raise ConfigError(f"{name}: is {value}; expected at least {bound}")
    if settings.reference is not None and not settings.with_reference:
        raise ConfigError(
            f"reference: is {settings.reference!r}, but training is to be without one; give the one or the other"
        )
    if settings.parameterisation == LOG_RATIO and settings.read_at is not None:
        raise ConfigError(
            f"read_at: is {settings.read_at!r}, but a log-ratio is of every token; it is for parameterisation linear "
            "or tokens"
        )
    if settings.splitter != TOKENS:
        splitter(settings.splitter)  # refuses an unknown name now, and not when the model is done


def _checked_arguments(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of TrainingArguments, as the types that they have."""
    from transformers import TrainingArguments

    kinds = get_type_hints(TrainingArguments)
    known = [item.name for item in dataclasses.fields(TrainingArguments) if item.init]
    for name in trainer:
        if name not in known:
            raise ConfigError(f"trainer.{name}: no such field of TrainingArguments.{suggestion(name, known)}")
        if name in _DECIDED:
            raise ConfigError(f"trainer.{name}: is decided by freeprm; {_DECIDED[name]}")
    return {name: convert(kinds[name], value, name=f"trainer.{name}") for name, value in trainer.items()}
