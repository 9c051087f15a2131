"""The README.md beside a trained reward model: what it is, how to read it, what it was made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freeprm.models.folders import SOLVER
from freeprm.models.reward_config import RewardConfig
from freeprm.training.settings import TrainSettings


def model_card(
    config: RewardConfig, settings: TrainSettings, *, counts: Mapping[str, Any], final: Mapping[str, float]
) -> str:
    """Markdown with the metadata that model hubs read."""
    on_hub = not (Path(config.base).is_absolute() or config.base.startswith(SOLVER))
    base = f"base_model: {config.base}\n" if on_hub else ""
    measured = "\n".join(f"| {key} | {value:.4f} |" for key, value in final.items())
    used = "\n".join(f"| {key} | {value} |" for key, value in counts.items())
    return f"""---
library_name: transformers
{base}tags: [process-reward-model, implicit-prm, freeprm]
---

# Implicit process reward model ({config.objective})

A causal language model whose log-ratio to its reference is a reward, for the whole response and for every step:

    r(y) = {config.beta} * log( pi(y|x) / pi_ref(y|x) ),    pi_ref = {config.reference.source}

Trained from {config.base} on right-or-wrong labels of whole responses, with objective `{config.objective}`
(Yuan et al. 2024, arXiv:2412.01981). `reward.json` records beta, the reference and its hash.

    from freeprm import ImplicitPRM
    prm = ImplicitPRM.from_pretrained("THIS_FOLDER")
    scores = prm.score("a question", ["a response"])

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
