"""Teaching a causal language model to answer with the log-probabilities of chosen tokens, from a packed row.

    model(**inputs(packed, tree, device)) -> (n,) log-probabilities of the packed targets

The answer comes out of the model's own `forward`, so that whatever wraps the model (DDP, FSDP, autocast, adapters,
activation checkpointing) works as ever. A model that cannot be taught is left as it is.
"""

from collections.abc import Callable
from functools import wraps
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
    readout = _readout(inner)
    if readout is None or not isinstance(inner, PreTrainedModel):
        setattr(inner, _TAUGHT, False)
        return False
    plain, before = inner.forward, inner.config._attn_implementation
    inner.set_attn_implementation(NAME)
    inner.forward = _forward(inner, plain, readout)
    taught = inner.device.type == "meta" or examine(inner)
    if not taught:
        inner.forward = plain
        inner.set_attn_implementation(before)
    setattr(inner, _TAUGHT, taught)
    return taught


def _forward(model: PreTrainedModel, plain: Callable[..., Any], readout: Readout) -> Callable[..., Any]:
    @wraps(plain)
    def forward(*args: Any, targets: Targets | None = None, **options: Any) -> Any:
        if targets is None:
            return plain(*args, **options)
        given = {name: value for name, value in options.items() if value is not None}
        hidden = model.base_model(*args, **given).last_hidden_state[0]  # (T, d)
        return chosen_logprobs(hidden.index_select(0, targets.predictors), targets.ids, readout)

    return forward


def _readout(model: nn.Module) -> Readout | None:
    """How the model makes logits; None where packed rows are beyond it as far as its structure tells."""
    if not isinstance(model, PreTrainedModel) or is_deepspeed_zero3_enabled():  # whose weights are there in parts only
        return None
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    head = model.get_output_embeddings()
    can_be_taught = (
        type(head) is nn.Linear  # not one with an adapter on it
        and model.base_model is not model
        and kinds <= _ATTENDING
        and model.config._attn_implementation in _REPLACED
        and model._can_set_attn_implementation()
    )
    if not can_be_taught:
        return None
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    return Readout(head, scale=scale, cap=getattr(config, "final_logit_softcapping", None))
