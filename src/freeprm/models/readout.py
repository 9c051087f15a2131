"""Teaching a causal model to answer for a packed row: the log-probabilities of chosen tokens, or values at positions.

    model(**inputs(packed, tree, device)) -> (n,) log-probabilities of the packed targets
    model(**row(packed, tree, device), reads=Reads(positions, head)) -> (n,) what the head says of the states there

The answer comes out of the model's own `forward`, so that whatever wraps the model (DDP, FSDP, autocast, adapters,
activation checkpointing) works as ever. A model that cannot be patched is left as it is.
"""

from collections.abc import Callable
from functools import wraps
from types import MethodType, NoneType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from freeprm.models.linear_logprobs import Readout, chosen_logprobs
from freeprm.models.packing import Index, Packed
from freeprm.models.tree_attention import NAME, Tree

_TAUGHT = "freeprm_taught"
_REPLACED = ("sdpa", "eager", NAME)
_ATTENDING = {"full_attention", "sliding_attention"}


class Head(Protocol):
    """What is read off hidden states."""

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """(n, d) -> (n,) float32 or better; called inside the model's forward, where its weights are."""
        ...


class Reads(NamedTuple):
    """Where a model is asked for what."""

    positions: Tensor
    """(n,) in the row; of several padded rows, counted through."""
    head: Head


class Targets(NamedTuple):
    """Which log-probabilities are asked for."""

    predictors: Tensor
    """(n,) positions in the row."""
    ids: Tensor
    """(n,)"""


def inputs(packed: Packed, tree: Tree, device: torch.device) -> dict[str, Any]:
    """What a patched model is called with for log-probabilities; the tree is that of the packed segments."""
    targets = Targets(*(on_device(array, device) for array in (packed.predictors, packed.targets)))
    return {**row(packed, tree, device), "targets": targets}


def packed_logprobs(model: nn.Module, packed: Packed, tree: Tree) -> Tensor:
    """(T_total,) what a patched model says of a packed row, response after response."""
    answers: Tensor = model(**inputs(packed, tree, next(model.parameters()).device))
    return answers.index_select(0, torch.from_numpy(np.concatenate(packed.places)).to(answers.device))


def row(packed: Packed, tree: Tree, device: torch.device) -> dict[str, Any]:
    """A packed row as a patched model takes it, without what is asked."""
    return {
        "input_ids": on_device(packed.ids, device)[None], "position_ids": on_device(packed.positions, device)[None],
        "use_cache": False,
        # Of four dimensions, so that no mask is made of it; the tree is what is attended by.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "tree": tree,
    }  # fmt: skip


def on_device(array: Index, device: torch.device) -> Tensor:
    """The same numbers there, without waiting for them: a GPU fetches them from memory that stays in its place."""
    numbers = torch.from_numpy(array)
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)


def is_patched(model: nn.Module) -> bool | None:
    """Whether a model, wrapped or not, answers for packed rows; None where it has not been tried."""
    return getattr(core(model), _TAUGHT, None)


def core(model: nn.Module) -> Any:
    """The language model inside wrappers and adapters."""
    while isinstance(inner := getattr(model, "module", None) or getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    adapted: Any = model
    return adapted.get_base_model() if hasattr(model, "get_base_model") else model


def patch_forward(model: nn.Module, *, examine: Callable[[nn.Module], bool]) -> bool:
    """Teach a model, before anything distributed wraps it; once.

    Args:
        model: a causal model, perhaps with adapters.
        examine: whether the patched model answers as it did before; asked unless its weights are elsewhere.

    Returns:
        Whether it answers for packed rows now. One without an output head that does not, and so could not be asked
        otherwise, still answers where `Reads` of padded rows ask.
    """
    inner = core(model)
    if (known := getattr(inner, _TAUGHT, None)) is not None:
        return bool(known)
    patched = _can_be_patched(inner) and _is_patched_now(inner, examine)
    if not patched and isinstance(inner, PreTrainedModel) and not has_output_head(inner):
        _let_answer(inner)
    setattr(inner, _TAUGHT, patched)
    return patched


def has_output_head(model: PreTrainedModel) -> bool:
    """Whether a model predicts tokens; a classifier does not."""
    return model.get_output_embeddings() is not None


def readout_of(model: PreTrainedModel) -> Readout:
    """How the model makes logits."""
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    return Readout(model.get_output_embeddings(), scale=scale, cap=getattr(config, "final_logit_softcapping", None))


def _is_patched_now(inner: Any, examine: Callable[[nn.Module], bool]) -> bool:
    """Teach; and take it back from a model that does not pass."""
    before = inner.config._attn_implementation
    inner.set_attn_implementation(NAME)
    _let_answer(inner)
    if inner.device.type == "meta" or examine(inner):
        return True
    del inner.forward
    inner.set_attn_implementation(before)
    return False


def _let_answer(inner: Any) -> None:
    # A method, and not a closure: a deep copy of the model has to answer with its own weights.
    inner.forward = MethodType(_answering(type(inner).forward), inner)


def _answering(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a class of models, which also answers what is asked."""

    @wraps(plain)
    def forward(
        self: PreTrainedModel, *args: Any, targets: Targets | None = None, reads: Reads | None = None, **options: Any
    ) -> Any:
        if targets is None and reads is None:
            return plain(self, *args, **options)
        given = {name: value for name, value in options.items() if value is not None}
        hidden = self.base_model(*args, **given).last_hidden_state.flatten(0, 1)  # (T, d)
        if reads is not None:
            return reads.head(self, hidden.index_select(0, reads.positions))
        assert targets is not None
        return chosen_logprobs(hidden.index_select(0, targets.predictors), targets.ids, readout_of(self))

    return forward


def _can_be_patched(model: nn.Module) -> bool:
    """Whether packed rows are within a model, as far as its structure tells."""
    if not isinstance(model, PreTrainedModel) or is_deepspeed_zero3_enabled():  # whose weights are there in parts only
        return False
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    return (
        type(model.get_output_embeddings()) in (nn.Linear, NoneType)  # not one with an adapter on it
        and model.base_model is not model
        and "forward" not in vars(model)  # as of a model spread over devices
        and kinds <= _ATTENDING
        and model.config._attn_implementation in _REPLACED
        and model._can_set_attn_implementation()
    )
