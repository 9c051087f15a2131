"""The model that is trained: loaded, without dropout, with LoRA adapters where asked for."""

from pathlib import Path

from torch import device, nn
from transformers import PreTrainedModel

from freeprm.errors import ModelError
from freeprm.models.backbone import LoadOptions, load_backbone
from freeprm.models.folders import adapter_base, portable
from freeprm.training.settings import TrainSettings


def load_policy(settings: TrainSettings, folder: Path, where: device) -> nn.Module:
    """The policy, ready to be trained.

    Args:
        settings: of the training run.
        folder: of the model that training starts from.
        where: the device of this process.

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
    model = load_backbone(str(folder), options).model
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


def _with_lora(model: PreTrainedModel, settings: TrainSettings) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora,
        lora_alpha=settings.lora_alpha or 2 * settings.lora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        revision=settings.revision,
    )
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = portable(settings.model)
    return adapted
