"""reward.json: what a model folder must say of itself to be read as a reward model.

The weights alone do not say which reference they were trained against, nor beta; nor whether they are a policy whose
log-ratio is the reward or a model of values, and where those are read. Scoring with another reference or beta is
refused unless it is asked for by name.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from freeprm.errors import ModelError
from freeprm.io.rows import write_json

REWARD_FILE = "reward.json"
LOG_RATIO = "log_ratio"
"""The parameterisation of implicit process reward models; any other is one of `freeprm.models.values`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The frozen model of the log-ratio."""

    source: str
    """Folder, hub id or shipped solver, as it was given."""
    revision: str | None = None
    weights_sha256: str


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
            "`freeprm train` wrote; any other model can be its own scorer with `freeprm score --untrained`"
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
