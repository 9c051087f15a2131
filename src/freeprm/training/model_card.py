"""The README.md beside a trained reward model: what it is, how to read it, what it was made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from freeprm.models.loading import SOLVER
from freeprm.models.reward_config import LOG_RATIO, RewardConfig
from freeprm.training.settings import TrainSettings


def model_card(
    config: RewardConfig, settings: TrainSettings, *, counts: Mapping[str, Any], final: Mapping[str, float]
) -> str:
    """Markdown with the metadata that model hubs read."""
    on_hub = not (Path(config.base).is_absolute() or config.base.startswith(SOLVER))
    base = f"base_model: {config.base}\n" if on_hub else ""
    measured = "\n".join(f"| {key} | {value:.4f} |" for key, value in final.items())
    used = "\n".join(f"| {key} | {value} |" for key, value in counts.items())
    tags = "process-reward-model, implicit-prm" if config.parameterisation == LOG_RATIO else "reward-model"
    labels = "labels of steps" if counts.get("labelled steps") else "right-or-wrong labels of whole responses"
    return f"""---
library_name: transformers
{base}tags: [{tags}, freeprm]
---

{_DESCRIPTIONS[config.parameterisation](config)}
Trained from {config.base} on {labels}, with objective `{config.objective}`.

## Data

| | |
| --- | --- |
{used}

## Last logged in training

| | |
| --- | --- |
{measured}

Seed {settings.seed}. Every setting and the hashes of the data are in `manifest.json`.
"""


def _log_ratio(config: RewardConfig) -> str:
    assert config.reference is not None
    return f"""# Implicit process reward model ({config.objective})

A causal language model whose log-ratio to its reference is a reward, for the whole response and for every step:

    r(y) = {config.beta} * log( pi(y|x) / pi_ref(y|x) ),    pi_ref = {config.reference.source}

See Yuan et al. 2024, arXiv:2412.01981. `reward.json` records beta, the reference and its hash.

    from freeprm import ImplicitPRM
    prm = ImplicitPRM.from_pretrained("THIS_FOLDER")
    scores = prm.score("a question", ["a response"])
"""


def _linear(config: RewardConfig) -> str:
    return _valued(
        config,
        "V = w . h, a linear head on the hidden state h that has just read the token",
        "ForSequenceClassification",
    )


def _tokens(config: RewardConfig) -> str:
    assert config.judgement is not None
    good, bad = config.judgement
    return _valued(config, f"V = logit({good!r}) - logit({bad!r}) of what could follow the token", "ForCausalLM")


def _valued(config: RewardConfig, value: str, architecture: str) -> str:
    kind, place = _READ[str(config.read_at)]
    return f"""# {kind} ({config.parameterisation}, {config.objective})

A model ({architecture}) that says how likely a response is to be right, as log-odds at {place}:

    {value}

Nothing is put into the text: V is read, and was trained, after the token itself. Its sigmoid is the probability; there
is no reference. `reward.json` records what is read and where.

    freeprm score ROLLOUTS --prm THIS_FOLDER
"""


_DESCRIPTIONS: Mapping[str, Callable[[RewardConfig], str]] = {
    LOG_RATIO: _log_ratio,
    "linear": _linear,
    "tokens": _tokens,
}
_READ = {
    "steps": ("Process reward model", "the last token of each step"),
    "response": ("Outcome reward model", "the response's last token"),
}
