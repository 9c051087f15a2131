"""What stands beside the weights of a trained model: tokenizer, reward.json, log, and a README.md that explains it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freeprm.io.rows import write_json, write_text
from freeprm.models.loading import SOLVER, dequantised_from, downloaded_revision, portable, template_hash
from freeprm.models.prompts import told_date
from freeprm.models.reward_config import LOG_RATIO, Reference, RewardConfig, save_reward_config
from freeprm.training.examples import GroupPreparer
from freeprm.training.settings import TrainSettings
from freeprm.training.setup import TrainingSetup


def describe(
    out: Path,
    setup: TrainingSetup,
    preparer: GroupPreparer,
    *,
    counts: Mapping[str, Any],
    log: Sequence[dict[str, float]],
) -> None:
    """Put beside the weights what a reader of the folder needs: tokenizer, reward.json, model card, log."""
    settings, reward, reference = setup.settings, setup.reward, preparer.reference
    valuation = reward.valuation
    config = RewardConfig(
        beta=reward.beta,
        base=portable(settings.model),
        reference=None if reference is None else Reference(
            source=portable(settings.reference or settings.model), revision=downloaded_revision(reference.folder),
            weights_sha256=reference.sha256, dequantised=dequantised_from(reference.folder),
        ),
        parameterisation=settings.parameterisation,
        read_at=valuation.read_at if valuation else None,
        judgement=valuation.judgement if valuation else None,
        trained_with_reference=reward.with_reference,
        objective=settings.objective,
        objective_options=dict(settings.objective_options),
        template_sha256=template_hash(preparer.tokenizer),
        template_date=told_date(preparer.tokenizer),
        splitter=settings.splitter,
        reasoning=settings.reasoning,
    )  # fmt: skip
    preparer.tokenizer.save_pretrained(out)
    save_reward_config(config, out)
    final = next((entry for entry in reversed(log) if "loss" in entry), {})
    write_text(out / "README.md", model_card(config, settings, counts=counts, final=final))
    write_json(out / "log.json", list(log))


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

{(_log_ratio if config.parameterisation == LOG_RATIO else _valued)(config)}
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


def _valued(config: RewardConfig) -> str:
    kind, place = _READ[str(config.read_at)]
    value, architecture = "V = w . h, a linear head on the hidden state h that has just read the token", _CLASSIFIER
    if config.judgement is not None:
        good, bad = config.judgement
        value, architecture = f"V = logit({good!r}) - logit({bad!r}) of what could follow the token", "ForCausalLM"
    return f"""# {kind} ({config.parameterisation}, {config.objective})

A model ({architecture}) that says how likely a response is to be right, as log-odds at {place}:

    {value}

Nothing is put into the text: V is read, and was trained, after the token itself. Its sigmoid is the probability; there
is no reference. `reward.json` records what is read and where.

    freeprm score ROLLOUTS --prm THIS_FOLDER
"""


_CLASSIFIER = "ForSequenceClassification"
_READ = {
    "steps": ("Process reward model", "the last token of each step"),
    "response": ("Outcome reward model", "the response's last token"),
}
