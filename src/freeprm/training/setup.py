"""What a training run is before its data is read: settings with nothing left open, objective, reward, start.

The start may be a reward model already. A log-ratio is to a reference and has a scale: an implicit process reward
model that is trained on, say on step labels, keeps both, so that it starts from the rewards that it gives. With another
reference named it is the start of a new reward. A model of values keeps its head.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from freeprm.errors import ConfigError, RewardMismatchError
from freeprm.models.loading import resolve, weights_hash
from freeprm.models.reward_config import LOG_RATIO, REWARD_FILE, RewardConfig, load_reward_config
from freeprm.objectives.base import Objective, objective_named
from freeprm.training.batches import Reward, reward_of
from freeprm.training.policy import check_precision
from freeprm.training.settings import TrainSettings, filled


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """All that is known before the data is read."""

    settings: TrainSettings
    """With nothing left open."""
    sources: Mapping[str, str]
    """Name of a setting that was not given -> where its value comes from."""
    objective: Objective
    reward: Reward
    """What a reward is."""
    start: Path
    """Folder of the model that training starts from."""


def set_up_training(settings: TrainSettings) -> TrainingSetup:
    """Fill the settings, and refuse what cannot be trained before anything is read or loaded.

    Raises:
        PluginError: there is no such objective, or it does not say what it needs.
        ConfigError: settings that do not go together.
        ModelError: there is no such model.
        RewardMismatchError: the start is a reward model whose reference is not where it was, or has other weights.
    """
    objective = objective_named(settings.objective, settings.objective_options)
    start = resolve(settings.model, revision=settings.revision)
    carried = carried_on(settings, start)
    kept = [name for name in _CARRIED if getattr(carried, name) != getattr(settings, name)]
    whole, sources = filled(carried)
    check_precision(whole, start)
    return TrainingSetup(
        settings=whole, sources={**dict.fromkeys(kept, f"reward.json of {settings.model}"), **sources},
        objective=objective, reward=reward_of(whole, objective), start=start,
    )  # fmt: skip


_CARRIED = ("beta", "reference", "reference_revision")


def carried_on(settings: TrainSettings, start: Path) -> TrainSettings:
    """The settings with what the start's reward.json decides: reference and beta of a log-ratio; warns of it.

    Args:
        settings: as they were given.
        start: folder of the model that training starts from.

    Raises:
        ConfigError: the start is of another parameterisation, or was trained without the reference that is asked for.
        RewardMismatchError: the recorded reference is not where it was, or has other weights.
    """
    if not (start / REWARD_FILE).exists():
        return settings
    config = load_reward_config(start)
    _check_parameterisation(settings, config)
    if settings.reasoning != config.reasoning:
        warnings.warn(
            f"{settings.model}: was trained with reasoning={config.reasoning}, and is trained on with "
            f"{settings.reasoning}; give --set reasoning={config.reasoning} to go on as before",
            stacklevel=4,
        )
    recorded = config.reference
    if settings.parameterisation != LOG_RATIO or recorded is None:
        return settings
    if not settings.with_reference:
        return settings if config.trained_with_reference else replace(settings, beta=settings.beta or config.beta)
    if settings.reference is None and not config.trained_with_reference:
        raise ConfigError(
            f"model {settings.model}: a reward model that was trained without reference; go on so with --no-reference, "
            "or name a reference for a new reward"
        )
    source = settings.reference or recorded.source
    revision = settings.reference_revision if settings.reference else recorded.revision
    same = weights_hash(resolve(source, revision=revision)) == recorded.weights_sha256
    if settings.reference is None and not same:
        raise RewardMismatchError(
            f"{source}: has other weights than the reference that {settings.model} was trained with; say where that "
            "one is with --reference"
        )
    if not same:
        return settings  # a new reward
    beta = config.beta if settings.beta is None else settings.beta
    if settings.reference is None or beta != config.beta:
        other = "" if beta == config.beta else f", and not its own {config.beta:g}: its rewards start scaled"
        warnings.warn(
            f"{settings.model} is a reward model: it is trained on with its own reference {source}, beta {beta:g}"
            f"{other}. For a new reward that starts from 0, give --reference {settings.model}",
            stacklevel=4,
        )
    return replace(settings, reference=source, reference_revision=revision, beta=beta)


def _check_parameterisation(settings: TrainSettings, config: RewardConfig) -> None:
    """Refuse a start that cannot be what is asked for."""
    has, wanted = config.parameterisation, settings.parameterisation
    if has == LOG_RATIO:  # a language model, which can be taught any values
        return
    if has != wanted:
        raise ConfigError(
            f"model {settings.model}: gives values (parameterisation {has!r}), but is to be trained as {wanted!r}. Go "
            f"on from it with --parameterisation {has}, or start from a language model, such as its base {config.base}"
        )
    if has == "tokens" and config.judgement != settings.judgement:
        raise ConfigError(
            f"judgement: is {settings.judgement}, but {settings.model} was trained with {config.judgement}; go on with "
            "those, or start from a language model"
        )
