"""A model's forward pass over a packed row (see `packing`): attention over the prefix tree, and what is read off it.

    model(**inputs(packed, tree, device)) -> (n,) log-probabilities of the packed targets
    model(**row(packed, tree, device), reads=Reads(positions, head)) -> (n,) what the head says of the states there

Tree attention is an attention implementation of transformers: a model whose layers all attend through its interface
computes a packed row exactly as it would compute the responses one by one, since each segment attends to its ancestors
and causally to itself. Without a tree the implementation is SDPA, so a model that has it generates as before.

The answer comes out of the model's own `forward`, so that whatever wraps the model (DDP, FSDP, autocast, adapters,
activation checkpointing) works as ever. A model that cannot be patched is left as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from types import MethodType, NoneType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from freeprm.models.output_head import Readout, chosen_logprobs
from freeprm.models.packing import Index, Packed, Segment

NAME = "freeprm_tree"
"""Of the attention implementation, among those of transformers."""
_PATCHED = "freeprm_patched"
"""Attribute of a model that was tried: whether its forward is patched."""
_REPLACED = ("sdpa", "eager", NAME)
_ATTENDING = {"full_attention", "sliding_attention"}
_BEYOND = ("s_aux", "position_bias")
"""Options of a layer's attention that tree attention ignores: a call with one of them does not count."""
_CPU_QUERIES, _GPU_QUERIES = 256, 1024
"""Queries of a segment at a time: keys that the causal mask hides from all of them are not computed. On a GPU more of
them, for fewer kernels; it bounds the mask."""


@dataclass(eq=False)
class Tree:
    """The segments of a packed row, and how often attention has been computed over them."""

    segments: tuple[Segment, ...]
    calls: int = 0
    """One a layer; fewer mean that some layer attends in another way."""
    masks: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict)
    """(t, L) bool by t, L and window: made once for all layers and all segments of this shape."""


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row (see `Tree`), or SDPA where there is no tree; called by transformers.

    Args:
        module: the layer's attention.
        query: (1, H, T, D)
        key: (1, H or fewer, T, D), as is the value.
        value: like the key.
        attention_mask: used only without a tree.
        tree: the row's segments.
        options: of the layer's attention: `scaling`, `sliding_window`, `softcap`, ...

    Returns:
        (1, T, H, D), and no weights.
    """
    cap, scale = options.get("softcap"), options.get("scaling")
    if tree is None and cap is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    n_times = query.shape[1] // key.shape[1]
    if n_times > 1:
        key, value = key.repeat_interleave(n_times, dim=1), value.repeat_interleave(n_times, dim=1)
    if tree is None:
        attended = _capped(query, key, value, attention_mask, cap=cap or 0.0, scale=scale)
    else:
        tree.calls += all(options.get(name) is None for name in _BEYOND)
        attended = _over_tree(query, key, value, tree, window=options.get("sliding_window"), cap=cap, scale=scale)
    return attended.transpose(1, 2), None


def _over_tree(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, *, window: int | None, cap: float | None, scale: float | None
) -> Tensor:
    """(1, H, T, D), segment after segment: each over the keys of its ancestors, in order, and its own."""
    sizes = [segment.stop - segment.start for segment in tree.segments]
    queries, keys, values = (states.split(sizes, dim=2) for states in (query, key, value))
    attended = [
        _attend(
            queries[index],
            torch.cat([*(keys[part] for part in segment.ancestors), keys[index]], dim=2),
            torch.cat([*(values[part] for part in segment.ancestors), values[index]], dim=2),
            tree, window=window, cap=cap, scale=scale,
        )
        for index, segment in enumerate(tree.segments)
    ]  # fmt: skip
    return torch.cat(attended, dim=2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, *, window: int | None, cap: float | None, scale: float | None
) -> Tensor:
    """A segment's (1, H, t, D) queries over the (1, H, L, D) keys of its ancestors and itself, which come last."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    # A root without a window needs no mask: torch's causal kernels serve.
    if n_queries == n_keys and cap is None and (window is None or window >= n_keys):
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    parts = []
    size = _CPU_QUERIES if query.device.type == "cpu" else _GPU_QUERIES
    for start in range(0, n_queries, size):
        part = query[:, :, start : start + size]
        stop = n_keys - n_queries + start + part.shape[2]  # keys that the last of these queries sees
        shape = (part.shape[2], stop, window)
        if shape not in tree.masks:
            tree.masks[shape] = _causal(part.shape[2], stop, query.device, window=window)
        mask = tree.masks[shape]
        seen = key[:, :, :stop], value[:, :, :stop]
        parts.append(
            scaled_dot_product_attention(part, *seen, attn_mask=mask, scale=scale)
            if cap is None
            else _capped(part, *seen, mask, cap=cap, scale=scale)
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _causal(n_queries: int, n_keys: int, device: torch.device, *, window: int | None = None) -> Tensor:
    """(t, L) whether a query sees a key, where the last query stands at the last key."""
    places = torch.arange(n_keys, device=device)
    distance = places[n_keys - n_queries :, None] - places
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, cap: float, scale: float | None
) -> Tensor:
    """Attention whose logits are kept within +-cap by a tanh, as Gemma 2 has it; causal where no mask is given."""
    seen = _causal(query.shape[2], key.shape[2], query.device) if mask is None else mask
    logits = cap * torch.tanh(query @ key.transpose(2, 3) * ((scale or query.shape[-1] ** -0.5) / cap))
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1, dtype=torch.float32).to(query.dtype)
    return weights @ value


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


class Head(Protocol):
    """What is read off hidden states."""

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """(n, d) -> (n,) float32 or better; called inside the model's forward, where its weights are."""
        ...


class Reads(NamedTuple):
    """The positions at which a head is read."""

    positions: Tensor
    """(n,) in the row; of several padded rows, counted through."""
    head: Head


class Targets(NamedTuple):
    """The tokens whose log-probabilities are wanted."""

    predictors: Tensor
    """(n,) positions in the row."""
    ids: Tensor
    """(n,)"""


def inputs(packed: Packed, tree: Tree, device: torch.device) -> dict[str, Any]:
    """Arguments of a patched model for log-probabilities; the tree is that of the packed segments."""
    targets = Targets(*(on_device(array, device) for array in (packed.predictors, packed.targets)))
    return {**row(packed, tree, device), "targets": targets}


def packed_logprobs(model: nn.Module, packed: Packed, tree: Tree) -> Tensor:
    """(T_total,) of a packed row under a patched model, response after response."""
    answers: Tensor = model(**inputs(packed, tree, next(model.parameters()).device))
    return answers.index_select(0, torch.from_numpy(np.concatenate(packed.places)).to(answers.device))


def row(packed: Packed, tree: Tree, device: torch.device) -> dict[str, Any]:
    """Arguments of a patched model for a packed row; targets or reads come with them."""
    return {
        "input_ids": on_device(packed.ids, device)[None], "position_ids": on_device(packed.positions, device)[None],
        "use_cache": False,
        # Of four dimensions, so that no mask is made of it; the tree is what is attended by.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "tree": tree,
    }  # fmt: skip


def on_device(array: Index, device: torch.device) -> Tensor:
    """The same numbers on a device, copied without waiting: a GPU fetches them from pinned memory."""
    numbers = torch.from_numpy(array)
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)


def is_patched(model: nn.Module) -> bool | None:
    """Whether a model, wrapped or not, reads packed rows; None where it has not been tried."""
    return getattr(core(model), _PATCHED, None)


def core(model: nn.Module) -> Any:
    """The language model inside wrappers and adapters."""
    while isinstance(inner := getattr(model, "module", None) or getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    adapted: Any = model
    return adapted.get_base_model() if hasattr(model, "get_base_model") else model


def patch_forward(model: nn.Module, *, examine: Callable[[nn.Module], bool]) -> bool:
    """Patch a model's forward to read packed rows, before anything distributed wraps it; once.

    Args:
        model: a causal model, perhaps with adapters.
        examine: whether the patched model gives what it gave before; called unless its weights are elsewhere.

    Returns:
        Whether it reads packed rows now. One without an output head that does not still takes `Reads` of padded rows.
    """
    inner = core(model)
    if (known := is_patched(inner)) is not None:
        return known
    # A method, and not a closure: a deep copy of the model has to answer with its own weights.
    answering = MethodType(_answering(type(inner).forward), inner)
    patched = _can_be_patched(inner)
    if patched:
        before = inner.config._attn_implementation
        inner.set_attn_implementation(NAME)
        inner.forward = answering
        if inner.device.type != "meta" and not examine(inner):
            del inner.forward
            inner.set_attn_implementation(before)
            patched = False
    if not patched and isinstance(inner, PreTrainedModel) and not has_output_head(inner):
        inner.forward = answering
    setattr(inner, _PATCHED, patched)
    return patched


def has_output_head(model: PreTrainedModel) -> bool:
    """Whether a model predicts tokens; a classifier does not."""
    return model.get_output_embeddings() is not None


def readout_of(model: PreTrainedModel) -> Readout:
    """How the model makes logits; called inside its forward, where a sharded head is put together.

    A head that is a unit of FSDP by itself, as beside adapters, would be put together by its own call: there is none.
    """
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    if isinstance(head, FSDPModule):
        head.unshard()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    return Readout(head, scale=scale, cap=getattr(config, "final_logit_softcapping", None))


def _answering(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a class of models, which also takes targets or reads."""

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
