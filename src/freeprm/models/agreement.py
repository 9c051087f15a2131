"""What reward.json says against the models at hand: a difference is refused unless it is asked for by name."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from freeprm.errors import ConfigError, ModelError, RewardMismatchError
from freeprm.models.loading import Backbone, LoadOptions, template_hash, weights_hash
from freeprm.models.prompts import told_date
from freeprm.models.reward_config import Reference, RewardConfig

Override = Literal["beta", "reference", "template"]
OVERRIDES: tuple[Override, ...] = get_args(Override)
"""What may differ, where it is asked for."""


def check_override(name: str) -> Override:
    """The part of reward.json of this name.

    Raises:
        ConfigError: there is none.
    """
    for part in OVERRIDES:
        if name == part:
            return part
    raise ConfigError(f"override {name!r}: expected one of {', '.join(OVERRIDES)}")


def reference_of(config: RewardConfig, *, source: str) -> Reference:
    """The reference that a log-ratio is against.

    Raises:
        ModelError: the model gives values, and no log-ratio.
    """
    if config.reference is None:
        raise ModelError(
            f"{source}: gives values ({config.parameterisation}, read at the end of the {config.read_at}), not "
            f"log-ratios, so it is no implicit process reward model; score with `freeprm score --prm {source}`, or "
            "load it with freeprm.scorers.valued.Valued.load"
        )
    return config.reference


def check_template(config: RewardConfig, policy: Backbone, *, override: Sequence[Override] | None = None) -> None:
    """Refuse a tokenizer with another chat template than in training.

    Args:
        config: of the policy.
        policy: the trained model.
        override: what may differ; None where there is no leave to be had.

    Raises:
        RewardMismatchError: they differ.
    """
    if "template" not in (override or ()) and config.template_sha256 != template_hash(policy.tokenizer):
        told = told_date(policy.tokenizer)
        day = (
            f" (it tells the day {told}; what it told then is not recorded)"
            if told and not config.template_date
            else ""
        )
        raise RewardMismatchError(
            f"{policy.source}: the chat template is not the one it was trained with{day}; restore the tokenizer's files"
            + ("" if override is None else ", or allow it with --override template")
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


def with_beta(
    config: RewardConfig, policy: Backbone, *, beta: float | None, override: Sequence[Override]
) -> RewardConfig:
    """The configuration with the beta in force: reward.json's, unless another one is asked for.

    Raises:
        RewardMismatchError: another one without leave.
    """
    if beta is None or beta == config.beta:
        return config
    if "beta" not in override:
        raise RewardMismatchError(
            f"{policy.source} was trained with beta {config.beta}, not {beta}: vote weights and thresholds depend "
            "on it. Leave --beta out, or allow another one with --override beta"
        )
    return replace(config, beta=beta)
