"""What a model's configuration says of lengths: where it begins to read otherwise, and what may share a batch.

Some rotary embeddings turn every token of a sequence, the first ones too, by what the whole sequence's length is:

    longrope    one set of frequencies up to the length of pretraining, another one beyond it
    dynamic     the plain frequencies up to that length, and beyond it others for each length (dynamic NTK)

In transformers the longest row of a batch decides for all of its rows. So sequences may be read together, or go on from
keys and values that were kept, where they are of one kind: where the same frequencies are theirs. Other lengths that a
configuration names (sliding windows, chunks of attention) change nothing for a row's neighbours, but a trial has to
reach past them before it tells anything of longer rows; see `freeprm.models.routes`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedConfig

Kind = tuple[int, ...]
_Item = TypeVar("_Item")
_LONGROPE, _DYNAMIC = ("longrope", "su"), "dynamic"
_NAMED, _NOT_NAMED = ("window", "chunk", "original_max_position", "floor_scale"), ("layer", "pattern")
"""What the names of lengths in a configuration have in them, and what those of other numbers."""


def kind_of(config: PreTrainedConfig, n_tokens: int) -> Kind:
    """What decides how a sequence of this length is read; sequences of one kind do not disturb each other."""
    return tuple(
        max(n_tokens, limit) if is_dynamic else int(n_tokens > limit) for is_dynamic, limit in _dependent(config)
    )


def alike(items: Iterable[_Item], config: PreTrainedConfig, *, length: Callable[[_Item], int]) -> list[list[_Item]]:
    """Items whose sequences are of one kind together, in the order given."""
    found: dict[Kind, list[_Item]] = {}
    for item in items:
        found.setdefault(kind_of(config, length(item)), []).append(item)
    return list(found.values())


def last_of_kind(config: PreTrainedConfig, n_tokens: int) -> int | None:
    """How long a sequence of this length may become, token by token, before it is of another kind; None: unbounded."""
    lasts = [
        limit if n_tokens <= limit else n_tokens
        for is_dynamic, limit in _dependent(config)
        if is_dynamic or n_tokens <= limit
    ]
    return min(lasts, default=None)


def thresholds(config: PreTrainedConfig) -> tuple[int, ...]:
    """Lengths that the configuration names, ascending: beyond each of them a model may read otherwise."""
    named = [
        value
        for name, value in _numbers(config.get_text_config().to_dict())
        if any(part in name for part in _NAMED) and not any(part in name for part in _NOT_NAMED)
    ]
    return tuple(sorted({value for value in [*named, *(limit for _, limit in _dependent(config))] if value > 0}))


def splits_every_length(config: PreTrainedConfig, n_tokens: int) -> bool:
    """Whether only sequences of exactly this length are of its kind."""
    return any(is_dynamic and n_tokens > limit for is_dynamic, limit in _dependent(config))


def forget_lengths(model: nn.Module) -> None:
    """Let a dynamic rotary embedding forget the longest sequence as soon as it has turned one.

    transformers keeps its frequencies until something shorter than the original length comes, so what a model says
    would depend on what it has read before. Once done, it stays done.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if _DYNAMIC in str(kinds) and _forget not in module._forward_hooks.values():
            _forget(module)
            module.register_forward_hook(_forget)


def _forget(module: Any, *_: object) -> None:
    """As it was made; called behind each of its passes."""
    kinds = module.rope_type if isinstance(module.rope_type, Mapping) else {"": module.rope_type}
    for layer_type, kind in kinds.items():
        prefix = layer_type and f"{layer_type}_"
        original = getattr(module, f"{prefix}original_inv_freq", None)
        if _DYNAMIC in kind and original is not None:
            setattr(module, f"{prefix}inv_freq", original.to(getattr(module, f"{prefix}inv_freq").device))
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _dependent(config: PreTrainedConfig) -> list[tuple[bool, int]]:
    """For each rotary embedding that depends on the length, whether every length is its own, and beyond which."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    found = set()
    for part in (rope, *(value for value in rope.values() if isinstance(value, Mapping))):
        kind = str(part.get("rope_type") or part.get("type"))
        if _DYNAMIC in kind:
            found.add((True, int(text.max_position_embeddings)))
        elif kind in _LONGROPE:
            original = part.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            found.add((False, int(original or text.max_position_embeddings)))
    return sorted(found)


def _numbers(part: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """All integers of a configuration, with their names."""
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(name), value
