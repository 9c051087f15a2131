"""The model that is trained: loaded, without noise, with LoRA adapters where asked for."""

from collections.abc import Mapping
from pathlib import Path
from types import MethodType
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
    without_noise(model)
    return _with_lora(model, settings) if settings.lora else model


def without_noise(model: nn.Module) -> None:
    """Have a model compute in training what it computes at use, in place: noise of the policy is noise in log-ratios.

    Whatever mode the model is put into, its parts stay in evaluation mode, so that none drops anything, jitters the
    inputs of experts (Mixtral) or draws the experts themselves at random (PhiMoE). Layers and stacks that recompute
    activations do so in training mode only: they follow, with what they drop themselves set to 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if ("dropout" in name or "layerdrop" in name) and isinstance(value, float):  # e.g. given to a function
                setattr(module, name, 0.0)
        if module is not model and not hasattr(module, "gradient_checkpointing"):
            part: Any = module
            # A method, and not a closure: a deep copy of the model has its own parts.
            part.train = MethodType(_train_all_below, part)
            part.training = False


def _train_all_below(part: nn.Module, mode: bool = True) -> nn.Module:
    for child in part.children():
        child.train(mode)
    return part


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
