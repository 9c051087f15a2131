"""reward.json: what a model folder says of itself to be read as a reward model, and whether the models at hand agree.

The weights alone do not say which reference they were trained against, nor beta; nor whether they are a policy whose
log-ratio is the reward or a model of values, and where those are read. Scoring with another reference, beta or chat
template is refused unless it is asked for by name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from freeprm.core.steps import Reasoning
from freeprm.errors import ModelError, RewardMismatchError
from freeprm.io.rows import write_json
from freeprm.models.loading import Backbone, LoadOptions, template_hash, weights_hash
from freeprm.models.prompts import told_date

REWARD_FILE = "reward.json"
LOG_RATIO = "log_ratio"
"""The parameterisation of implicit process reward models; any other is one of `freeprm.models.values`."""
Override = Literal["beta", "reference", "template"]
OVERRIDES: tuple[Override, ...] = get_args(Override)
"""What may differ from reward.json, where it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The frozen model of the log-ratio."""

    source: str
    """Folder, GGUF file, hub id or shipped solver, as it was given."""
    revision: str | None = None
    weights_sha256: str
    dequantised: str | None = None
    """What its weights were before they were dequantised, such as Q4_K_M of a GGUF file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """How a model's outputs become rewards."""

    beta: float
    """Scale of the log-ratio; rewards are in beta * nats. 1 for values, which are log-odds."""
    base: str
    """The model that training started from."""
    reference: Reference | None
    """The model that training started from, frozen; recorded even where training went without it. None for values."""
    parameterisation: str = LOG_RATIO
    """What the reward is: beta * log(pi_phi / pi_ref), or a value: "linear" in the hidden state, or of "tokens"."""
    read_at: str | None = None
    """Where values are read: at the end of "steps", or of the "response". None for the log-ratio."""
    judgement: tuple[str, str] | None = None
    """The texts of the tokens good and bad, whose logits' difference is the value."""
    trained_with_reference: bool = True
    objective: str
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    template_sha256: str | None = None
    """Hash of the chat template, None for plain text."""
    template_date: str | None = None
    """The day (YYYY-MM-DD) that the template told in training, whenever that was; None where it tells none."""
    splitter: str = "auto"
    """How responses are cut into steps unless the caller says otherwise."""
    reasoning: Reasoning = "include"
    """What becomes of a section of reasoning before the answer; see `core.steps.steps_in`."""
    format: int = 1


def save_reward_config(config: RewardConfig, folder: Path) -> None:
    """Write reward.json beside the weights."""
    write_json(folder / REWARD_FILE, asdict(config))


def load_reward_config(folder: Path) -> RewardConfig:
    """Read reward.json.

    Raises:
        ModelError: there is none, or it is not one of ours.
    """
    path = folder / REWARD_FILE
    if not path.exists():
        raise ModelError(
            f"{folder}: no {REWARD_FILE}, so beta and the reference are unknown. Expected a folder that "
            "`freeprm train` wrote; a released reward model is read by its recipe, --scorer NAME --model MODEL, and "
            "any language model can be its own scorer: --untrained MODEL"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = {item.name for item in fields(RewardConfig)}
        unknown = sorted(set(raw) - known)
        if unknown:
            raise ModelError(f"{path}: unknown setting {unknown[0]!r}; written by a newer freeprm?")
        return _built(raw)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: not a reward configuration ({error})") from error


def _built(raw: Mapping[str, Any]) -> RewardConfig:
    """Raises: ValueError, TypeError or KeyError, where the settings are not those of a reward model."""
    reference = raw["reference"]
    judgement = raw.get("judgement")
    config = RewardConfig(**{
        **raw,
        "reference": None if reference is None else Reference(**reference),
        "judgement": None if judgement is None else tuple(judgement),
    })  # fmt: skip
    if (config.reference is None) == (config.parameterisation == LOG_RATIO):
        how = "without a" if reference is None else "with a"
        raise ValueError(f"parameterisation {config.parameterisation!r} {how} reference")
    return config


def stored_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands; empty for an adapter's folder, whose base decides.

    Raises:
        ModelError: it cannot be read.
    """
    path = folder / "config.json"
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    return stored


def reference_of(config: RewardConfig, *, source: str) -> Reference:
    """The reference that a log-ratio is against.

    Raises:
        ModelError: the model gives values, and no log-ratio.
    """
    if config.reference is None:
        raise ModelError(
            f"{source}: gives values ({config.parameterisation}, read at the end of the {config.read_at}), not "
            f"log-ratios, so it is no implicit process reward model; score with `freeprm score --prm {source}`, or "
            "load it with freeprm.scorers.base.load_scorer"
        )
    return config.reference


def check_template(
    config: RewardConfig, tokenizer: PreTrainedTokenizerBase, *, source: str, override: Sequence[Override] | None = None
) -> None:
    """Refuse a tokenizer with another chat template than in training.

    Args:
        config: of the trained model.
        tokenizer: as it is now.
        source: the trained model, for the message.
        override: what may differ; None where there is no leave to be had.

    Raises:
        RewardMismatchError: they differ.
    """
    if "template" not in (override or ()) and config.template_sha256 != template_hash(tokenizer):
        day = None if config.template_date else told_date(tokenizer)
        unknown = f" (it tells the day {day}; what it told then is not recorded)" if day else ""
        leave = "" if override is None else ", or allow it with --override template"
        raise RewardMismatchError(
            f"{source}: the chat template is not the one it was trained with{unknown}; restore the tokenizer's "
            f"files{leave}"
        )


def recorded_date(config: RewardConfig, options: LoadOptions, *, override: Sequence[Override] = ()) -> LoadOptions:
    """How to load the trained model, for its chat template to tell the day that it told in training."""
    return options if "template" in override else replace(options, template_date=config.template_date)


def check_reference(
    config: RewardConfig, reference: Backbone, *, policy: Backbone, override: Sequence[Override]
) -> None:
    """Refuse another reference than in training.

    Raises:
        ModelError: the configuration is not of a log-ratio.
        RewardMismatchError: the weights differ.
    """
    recorded, found = reference_of(config, source=policy.source), weights_hash(reference.folder)
    if found != recorded.weights_sha256 and "reference" not in override:
        raise RewardMismatchError(
            f"{policy.source} was trained against {recorded.source} (weights {recorded.weights_sha256[:12]}), but "
            f"{reference.source} has weights {found[:12]}. Give that reference with --reference, or allow another one "
            "with --override reference"
        )


def with_beta(config: RewardConfig, *, source: str, beta: float | None, override: Sequence[Override]) -> RewardConfig:
    """The configuration with the beta in force: reward.json's, unless another one is asked for.

    Raises:
        RewardMismatchError: another one without leave.
    """
    if beta is None or beta == config.beta:
        return config
    if "beta" not in override:
        raise RewardMismatchError(
            f"{source} was trained with beta {config.beta}, not {beta}: vote weights and thresholds depend "
            "on it. Leave --beta out, or allow another one with --override beta"
        )
    return replace(config, beta=beta)
