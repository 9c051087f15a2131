"""What reward.json says against the models at hand: a difference is refused unless it is asked for by name."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from freeprm.errors import ConfigError, RewardMismatchError
from freeprm.models.backbone import Backbone
from freeprm.models.fingerprint import template_hash, weights_hash
from freeprm.models.reward_config import RewardConfig

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


def check_template(config: RewardConfig, policy: Backbone, *, override: Sequence[Override]) -> None:
    """Refuse a tokenizer with another chat template than in training.

    Raises:
        RewardMismatchError: they differ.
    """
    if "template" not in override and config.template_sha256 != template_hash(policy.tokenizer):
        raise RewardMismatchError(
            f"{policy.source}: the chat template is not the one it was trained with; restore the tokenizer's files, or "
            "allow it with --override template"
        )


def check_reference(
    config: RewardConfig, reference: Backbone, *, policy: Backbone, override: Sequence[Override]
) -> None:
    """Refuse another reference than in training.

    Raises:
        RewardMismatchError: the weights differ.
    """
    recorded, found = config.reference, weights_hash(reference.folder)
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
