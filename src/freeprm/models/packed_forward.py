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
from dataclasses import dataclass
from functools import cached_property, wraps
from types import MethodType, NoneType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from freeprm.models.output_head import Readout, chosen_logprobs
from freeprm.models.packing import Index, Packed, Segment

NAME = "freeprm_tree"
"""Of the implementation, among those of transformers."""
_BEYOND = ("s_aux", "position_bias")
"""What a layer may ask of its attention, and this one does not do: a call that asks does not count."""
_QUERIES = {"cpu": 64}
"""Of a segment attended at a time: what a causal mask hides from all of them is not computed."""
_GPU_QUERIES = 1024  # fewer kernels; bounds the mask


@dataclass(eq=False)
class Tree:
    """The segments of a packed row, and how often attention has been computed over them."""

    segments: tuple[Segment, ...]
    calls: int = 0
    """One a layer; fewer mean that some layer goes another way."""

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each segment."""
        return [segment.stop - segment.start for segment in self.segments]

    @cached_property
    def masks(self) -> dict[tuple[int, int, int | None], Tensor]:
        """Made once for all layers."""
        return {}


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
        key: (1, H or fewer, T, D)
        value: like the key.
        attention_mask: used only without a tree.
        tree: the row's segments.
        options: what the layer tells its attention: `scaling`, `sliding_window`, `softcap`, ...

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
    """(1, H, T, D), segment after segment."""
    queries, keys, values = (states.split(tree.sizes, dim=2) for states in (query, key, value))
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
    """A segment's (1, H, t, D) queries over the (1, H, L, D) keys of its ancestors and itself."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    if n_queries == n_keys and cap is None and (window is None or window >= n_keys):
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    parts = []
    size = _QUERIES.get(query.device.type, _GPU_QUERIES)
    for start in range(0, n_queries, size):
        part = query[:, :, start : start + size]
        stop = n_keys - n_queries + start + part.shape[2]  # keys that the last of these queries sees
        mask = _mask(tree, part.shape[2], stop, window, query.device)
        seen = key[:, :, :stop], value[:, :, :stop]
        parts.append(
            scaled_dot_product_attention(part, *seen, attn_mask=mask, scale=scale)
            if cap is None
            else _capped(part, *seen, mask, cap=cap, scale=scale)
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _mask(tree: Tree, n_queries: int, n_keys: int, window: int | None, device: torch.device) -> Tensor:
    """(t, L) see `_causal`; made once for all layers and all segments of this shape."""
    shape = (n_queries, n_keys, window)
    if shape not in tree.masks:
        tree.masks[shape] = _causal(n_queries, n_keys, device, window=window)
    return tree.masks[shape]


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
