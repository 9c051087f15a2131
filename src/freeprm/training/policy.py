"""The model that is trained: loaded, without noise, with LoRA adapters where asked for, in weights that can be moved.

A step moves a weight by about the learning rate. A bfloat16 weight of 0.02 has its neighbours 1.2e-4 away, so that a
step of 5e-7 leaves it where it is, and so do all steps after it. Weights that are trained are therefore float32, or
bfloat16 with an optimizer that keeps what rounding takes from them (Kahan summation), for the model that is saved.
Rounding up or down at random does not do: over 48 such steps its noise is 2.7 times as large as the update.
"""

from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
from accelerate.utils import DistributedType
from torch import device, nn
from torch.optim import Optimizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel, TrainingArguments
from transformers.training_args import OptimizerNames

from freeprm.errors import ConfigError, ModelError
from freeprm.models.loading import LoadOptions, adapter_base, load_backbone, load_config, portable
from freeprm.models.memory import check_room
from freeprm.models.values import Valuation, load_valued
from freeprm.training.settings import KAHAN_OPTIMIZER, TrainSettings


def load_policy(
    settings: TrainSettings, folder: Path, where: device, *, valuation: Valuation | None = None
) -> nn.Module:
    """The policy of a folder, on the device of this process, ready to be trained.

    Args:
        valuation: how it says values; None for the log-probabilities of a language model.

    Raises:
        ConfigError: see `check_precision`.
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
    policy = _with_lora(model, settings) if settings.lora else model
    if trains_rounded(policy):
        _check_kept(settings, model.dtype)
    return policy


def check_precision(settings: TrainSettings, folder: Path) -> None:
    """Refuse weights that small steps would be rounded away from, before the model of the folder is loaded.

    Raises:
        ConfigError: 16-bit weights would be trained by an optimizer that does not keep what rounding takes.
    """
    if settings.lora:
        return  # adapters are float32 whatever the frozen weights are
    own = load_config(folder, trust_remote_code=settings.trust_remote_code).dtype
    dtype = own if settings.dtype == "auto" else getattr(torch, settings.dtype)
    if dtype in _ROUNDED:  # what "auto" is of a folder that does not say it is known when the weights are there
        _check_kept(settings, dtype)


def check_memory(settings: TrainSettings, folder: Path, arguments: TrainingArguments) -> None:
    """Refuse a model that the device of the one process that trains it cannot hold, before anything is loaded.

    Several processes may share it out, or put parts of it elsewhere, as they are launched.

    Raises:
        ModelError: weights, gradients and optimizer take more than there is.
    """
    if arguments.distributed_state is None or arguments.distributed_state.distributed_type != DistributedType.NO:
        return
    weights = count_weights(
        settings, folder, mixed=arguments.mixed_precision != "no", optimizer=OptimizerNames(arguments.optim).value
    )
    if weights.n_bytes is not None:
        check_room(
            weights.n_bytes, arguments.device,
            what=f"{settings.model}: training {weights.trained:,} of its {weights.trained + weights.frozen:,} weights "
            "(weights, gradients and optimizer, without activations)",
            advice="train adapters (--lora 16), bfloat16 weights with trainer.optim=stable_adamw, a smaller model, or "
            "share it out over several GPUs with `accelerate launch`",
        )  # fmt: skip


class Weights(NamedTuple):
    """The weights of a policy, and the bytes that they take while it is trained, where nothing is sharded."""

    trained: int
    frozen: int
    size: int
    """Bytes of one of the model's own; those of adapters have 4."""
    trained_size: int
    n_states: int | None
    """Numbers that the optimizer keeps of each trained weight, of its size; None where that is not known here."""
    copies: int
    """Bytes of 16-bit copies in which float32 matrices are multiplied under autocast."""

    @property
    def of_model(self) -> int:
        """Weights without adapters."""
        return self.frozen or self.trained

    @property
    def parameters(self) -> int:
        """Bytes of the weights themselves."""
        return self.trained * self.trained_size + self.frozen * self.size

    @property
    def gradients(self) -> int:
        """Bytes of the gradients."""
        return self.trained * self.trained_size

    @property
    def optimizer(self) -> int | None:
        """Bytes of the optimizer's state."""
        return None if self.n_states is None else self.trained * self.trained_size * self.n_states

    @property
    def n_bytes(self) -> int | None:
        """All of these; activations come on top."""
        return None if self.optimizer is None else self.parameters + self.copies + self.gradients + self.optimizer


def count_weights(settings: TrainSettings, folder: Path, *, mixed: bool, optimizer: str) -> Weights:
    """Count the weights of a folder's model that would be trained, without loading any.

    Args:
        settings: of the training.
        folder: has the model's config.json.
        mixed: matrices are multiplied in 16 bits.
        optimizer: `trainer.optim`.
    """
    config = load_config(folder, trust_remote_code=settings.trust_remote_code)
    kind: Any = AutoModelForCausalLM
    if _has_head(settings):
        kind, config.num_labels = AutoModelForSequenceClassification, 1
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=settings.trust_remote_code)
        policy = _with_lora(model, settings) if settings.lora else model
    trained = sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    frozen = sum(weight.numel() for weight in policy.parameters()) - trained
    dtype: torch.dtype = model.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    trained_size = 4 if settings.lora else dtype.itemsize
    states = _STATES.get(optimizer)
    if states is not None and optimizer == KAHAN_OPTIMIZER and trained_size == 2:
        states += 1  # with what rounding takes
    return Weights(
        trained, frozen, size=dtype.itemsize, trained_size=trained_size, n_states=states,
        copies=2 * (trained + frozen) if mixed and dtype is torch.float32 else 0,
    )  # fmt: skip


_STATES = {"adamw_torch": 2, "adamw_torch_fused": 2, KAHAN_OPTIMIZER: 2}
"""Numbers that an optimizer keeps of each weight, in the weight's dtype."""


def trains_rounded(policy: nn.Module) -> bool:
    """Whether 16-bit weights are trained."""
    return any(weight.requires_grad and weight.dtype in _ROUNDED for weight in policy.parameters())


_ROUNDED = (torch.bfloat16, torch.float16)


def _check_kept(settings: TrainSettings, dtype: torch.dtype) -> None:
    """Raises: ConfigError, if steps on weights of this 16-bit dtype get lost."""
    what = f"dtype: is {settings.dtype!r}, and "
    how = settings.trainer
    if how.get("optim") != KAHAN_OPTIMIZER or dtype is torch.float16:
        named = str(dtype).removeprefix("torch.")
        raise ConfigError(
            f"{what}every weight is trained, but steps of {how.get('learning_rate', 5e-7):g} are rounded away from "
            f"{named} weights: the nearest neighbours of 0.02 are {_spacing(dtype):.1g} away. Train float32 weights "
            "(dtype=float32; with trainer.bf16=true they compute in bfloat16), or bfloat16 weights with "
            f"trainer.optim={KAHAN_OPTIMIZER}, which keeps what is rounded away. Adapters (--lora 16) may stand on "
            "frozen weights of any dtype"
        )
    if how.get("adam_beta2", 0.999) > 0.99:
        raise ConfigError(
            f"trainer.adam_beta2: is {how.get('adam_beta2', 0.999)}, but the second moments of bfloat16 weights are "
            "bfloat16 too, in which v * 0.999 is v: they would never fall. Give 0.99 or less (0.95 is the recipe's)"
        )
    if how.get("load_best_model_at_end"):
        raise ConfigError(
            f"trainer.load_best_model_at_end: {what}what rounding took from the weights stays with the optimizer, "
            "which is not put back to the best step; train float32 weights for that"
        )


def _spacing(dtype: torch.dtype) -> float:
    """The distance from 0.02 to the next larger number."""
    return torch.finfo(dtype).eps * 2**-6


def give_back_rounded(policy: nn.Module, optimizer: Optimizer) -> None:
    """Make float32 weights, in place, of 16-bit ones and what was rounded away from them; others stay as they are.

    A weight and its rest are the weight that float32 would have come to. Saved without the rest, most weights that
    moved by less than half the distance to their neighbour would be those that training started from.

    Args:
        policy: the model, trained to its end.
        optimizer: that trained it; its state is let go, weight by weight, for the memory.
    """
    states = optimizer.state
    for weight in policy.parameters():
        rest = states.pop(weight, {}).get("kahan_comp")
        if weight.requires_grad and weight.dtype in _ROUNDED:
            weight.grad = None
            exact = weight.data.float()
            weight.data = exact if rest is None else exact + rest.float()


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


def _with_lora(model: PreTrainedModel, settings: TrainSettings) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    # A linear head starts from zeros, so it is trained whole and saved with the adapters.
    kind = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]} if _has_head(settings) else {"task_type": "CAUSAL_LM"}
    config = LoraConfig(
        r=settings.lora, lora_alpha=settings.lora_alpha or 2 * settings.lora, target_modules="all-linear",
        revision=settings.revision, **kind,
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    for weight in adapted.parameters():
        if weight.requires_grad:  # peft makes float32 adapters on 16-bit weights, but leaves a head in 16 bits
            weight.data = weight.data.float()
    adapted.peft_config["default"].base_model_name_or_path = portable(settings.model)
    return adapted


def _has_head(settings: TrainSettings) -> bool:
    return settings.parameterisation == "linear"
