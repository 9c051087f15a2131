"""Teaching a causal language model to answer with the log-probabilities of chosen tokens, from a packed row.

    model(**inputs(packed, tree, device)) -> (n,) log-probabilities of the packed targets

The answer comes out of the model's own `forward`, so that whatever wraps the model (DDP, FSDP, autocast, adapters,
activation checkpointing) works as ever. A model that cannot be taught is left as it is.
"""

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from freeprm.models.linear_logprobs import Readout, chosen_logprobs
from freeprm.models.packing import Packed
from freeprm.models.tree_attention import NAME, Tree

_TAUGHT = "freeprm_taught"
_REPLACED = ("sdpa", "eager", NAME)
_ATTENDING = {"full_attention", "sliding_attention"}


class Targets(NamedTuple):
    """Which log-probabilities are asked for."""

    predictors: Tensor
    """(n,) positions in the row."""
    ids: Tensor
    """(n,)"""


def inputs(packed: Packed, tree: Tree, device: torch.device) -> dict[str, Any]:
    """What a taught model is called with; the tree is that of the packed segments."""
    ids, positions, predictors, targets = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (packed.ids, packed.positions, packed.predictors, packed.targets)
    )
    return {
        "input_ids": ids[None], "position_ids": positions[None], "use_cache": False,
        # Of four dimensions, so that no mask is made of it; the tree is what is attended by.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "tree": tree, "targets": Targets(predictors, targets),
    }  # fmt: skip


def is_taught(model: nn.Module) -> bool | None:
    """Whether a model, wrapped or not, answers for packed rows; None where it has not been tried."""
    return getattr(core(model), _TAUGHT, None)


def core(model: nn.Module) -> Any:
    """The language model inside wrappers and adapters."""
    while isinstance(inner := getattr(model, "module", None) or getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    adapted: Any = model
    return adapted.get_base_model() if hasattr(model, "get_base_model") else model


def teach(model: nn.Module, *, examine: Callable[[nn.Module], bool]) -> bool:
    """Teach a model, before anything distributed wraps it; once.

    Args:
        model: a causal language model, perhaps with adapters.
        examine: whether the taught model answers as it did before; asked unless its weights are elsewhere.

    Returns:
        Whether it answers for packed rows now.
    """
    inner = core(model)
    if (known := getattr(inner, _TAUGHT, None)) is not None:
        return bool(known)
    if not _can_be_taught(inner):
        setattr(inner, _TAUGHT, False)
        return False
    before = inner.config._attn_implementation
    inner.set_attn_implementation(NAME)
    # A method, and not a closure: a deep copy of the model has to answer with its own weights.
    inner.forward = MethodType(_answering(type(inner).forward), inner)
    taught = inner.device.type == "meta" or examine(inner)
    if not taught:
        del inner.forward
        inner.set_attn_implementation(before)
    setattr(inner, _TAUGHT, taught)
    return taught


def _answering(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a class of models, which also answers for packed rows."""

    @wraps(plain)
    def forward(self: PreTrainedModel, *args: Any, targets: Targets | None = None, **options: Any) -> Any:
        if targets is None:
            return plain(self, *args, **options)
        given = {name: value for name, value in options.items() if value is not None}
        hidden = self.base_model(*args, **given).last_hidden_state[0]  # (T, d)
        return chosen_logprobs(hidden.index_select(0, targets.predictors), targets.ids, _readout(self))

    return forward


def _can_be_taught(model: nn.Module) -> bool:
    """Whether packed rows are within a model, as far as its structure tells."""
    if not isinstance(model, PreTrainedModel) or is_deepspeed_zero3_enabled():  # whose weights are there in parts only
        return False
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    return (
        type(model.get_output_embeddings()) is nn.Linear  # not one with an adapter on it
        and model.base_model is not model
        and "forward" not in vars(model)  # as of a model spread over devices
        and kinds <= _ATTENDING
        and model.config._attn_implementation in _REPLACED
        and model._can_set_attn_implementation()
    )


def _readout(model: PreTrainedModel) -> Readout:
    """How the model makes logits."""
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    return Readout(model.get_output_embeddings(), scale=scale, cap=getattr(config, "final_logit_softcapping", None))
