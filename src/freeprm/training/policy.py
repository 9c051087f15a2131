"""The model that is trained: loaded, without dropout, with LoRA adapters where asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import device, nn
from transformers import PreTrainedModel

from freeprm.errors import ModelError
from freeprm.models.backbone import LoadOptions, load_backbone
from freeprm.models.folders import adapter_base, portable
from freeprm.models.values import Valuation, load_valued
from freeprm.training.settings import TrainSettings


def load_policy(
    settings: TrainSettings, folder: Path, where: device, *, valuation: Valuation | None = None
) -> nn.Module:
    """The policy, ready to be trained.

    Args:
        settings: of the training run.
        folder: of the model that training starts from.
        where: the device of this process.
        valuation: how it says values; None for the log-probabilities of a language model.

    Raises:
        ModelError: the model cannot be loaded, or is an unmerged adapter.
    """
    if adapter_base(folder):
        raise ModelError(
            f"{folder}: a LoRA adapter; expected a whole model to start from. Merge it first (peft: merge_and_unload)"
        )
    options = LoadOptions(
        device=str(where), dtype=settings.dtype, attention=settings.attention,
        trust_remote_code=settings.trust_remote_code,
    )  # fmt: skip
    loaded = load_backbone(str(folder), options) if valuation is None else load_valued(str(folder), valuation, options)
    model = loaded.model
    without_dropout(model)
    return _with_lora(model, settings) if settings.lora else model


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off in place: noise in the policy alone would be noise in every log-ratio."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):  # e.g. attention_dropout, given to a function
                setattr(module, name, 0.0)


_LANGUAGE_MODEL = {"task_type": "CAUSAL_LM"}
# A linear head starts from zeros, so it is trained whole and saved with the adapters.
_CLASSIFIER = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
_ADAPTED: Mapping[str, Mapping[str, Any]] = {
    "log_ratio": _LANGUAGE_MODEL, "tokens": _LANGUAGE_MODEL, "linear": _CLASSIFIER
}  # fmt: skip


def _with_lora(model: PreTrainedModel, settings: TrainSettings) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora,
        lora_alpha=settings.lora_alpha or 2 * settings.lora,
        target_modules="all-linear",
        **_ADAPTED[settings.parameterisation],
        revision=settings.revision,
    )
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = portable(settings.model)
    return adapted
