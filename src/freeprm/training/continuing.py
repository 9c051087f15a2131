"""Going on from a model that is a reward model already: what its reward.json decides, unless it is decided anew.

A log-ratio is to a reference and has a scale. An implicit process reward model that is trained on, say on step labels,
keeps both, so that it starts from the rewards that it gives. With another reference named it is the start of a new
reward. A model of values keeps its head.
"""

import warnings
from dataclasses import replace
from pathlib import Path

from freeprm.errors import ConfigError, RewardMismatchError
from freeprm.models.fingerprint import weights_hash
from freeprm.models.folders import resolve
from freeprm.models.reward_config import LOG_RATIO, REWARD_FILE, RewardConfig, load_reward_config
from freeprm.training.settings import TrainSettings


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
        _tell(settings.model, config, source=source, beta=beta)
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


def _tell(model: str, config: RewardConfig, *, source: str, beta: float) -> None:
    other = "" if beta == config.beta else f", and not its own {config.beta:g}: its rewards start scaled"
    warnings.warn(
        f"{model} is a reward model: it is trained on with its own reference {source}, beta {beta:g}{other}. For a new "
        f"reward that starts from 0, give --reference {model}",
        stacklevel=4,
    )
