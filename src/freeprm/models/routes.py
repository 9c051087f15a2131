"""How a model is read: rows packed, padded, or each alone, and which rows together. Every path asks here.

A response's numbers must not depend on what is read beside it or before it. What may share a batch is decided by the
configuration (see `lengths`) and by a trial: rows read together have to give what each gives by itself. A trial of some
tokens comes first; where rows are longer than a length that the configuration names (a window, a chunk, the length of
pretraining), another one reaches past it, once, before they are read.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, is_initialized
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from freeprm.errors import ModelError
from freeprm.models.batching import budget, padded_batches, padded_ids, padded_logprobs
from freeprm.models.encoding import Encoded
from freeprm.models.lengths import forget_lengths, kind_of, splits_every_length, thresholds
from freeprm.models.loading import context_length
from freeprm.models.output_head import give_float32_logits
from freeprm.models.packed_forward import Tree, core, has_output_head, is_patched, packed_logprobs, patch_forward
from freeprm.models.packing import Index, pack, packed_batches
from freeprm.models.reads import packed_reads, padded_reads

Way = Literal["packed", "padded", "alone"]
_WAYS = "freeprm_ways"
_EXACT_ERROR, _ROUNDED_ERROR = 1e-2, 0.1
"""Nats by which a trial's two readings may differ: at most in float32, on average in 16 bits."""
_PROMPT, _ENDS = 5, (4, 6)  # tokens of a trial
_BEYOND = 8, 0.25  # tokens by which a trial passes a length, at least, and as a share of it


class Group(NamedTuple):
    """Rows that are read together."""

    packed: bool
    """As one row with shared beginnings once; else padded."""
    rows: list[int]


def prepare(model: nn.Module, *, longest: int = 0) -> bool:
    """Find out how a model is read; done unasked, but to be called before anything distributed wraps it.

    Args:
        model: a causal model or a classifier, perhaps with adapters.
        longest: tokens of the longest row that will be read.

    Returns:
        Whether it reads packed rows of that length.

    Raises:
        ModelError: what it says depends on what it has read before, or it is no model of transformers.
    """
    config = _inner(model).config
    limits = [limit for limit in thresholds(config) if limit < longest]
    return [_way(model, n_tokens) for n_tokens in (0, *limits, longest)][-1] == "packed"


def groups(model: nn.Module, lengths: Sequence[int]) -> list[Group]:
    """Rows of these lengths, in tokens, in groups within which none changes what another gives."""
    config = _inner(model).config
    found: dict[object, Group] = {}
    for row, n_tokens in enumerate(lengths):
        way = _way(model, n_tokens)
        key = row if way == "alone" else (way, kind_of(config, n_tokens))
        found.setdefault(key, Group(way == "packed", [])).rows.append(row)
    return list(found.values())


def divide(model: nn.Module, encoded: Sequence[Encoded], *, token_budget: int | None) -> Iterator[list[int]]:
    """Indices in batches as a model reads them; see `groups`, `packed_batches` and `padded_batches`."""
    for group in groups(model, [len(item.ids) for item in encoded]):
        divide_group = packed_batches if group.packed else padded_batches
        for batch in divide_group([encoded[row] for row in group.rows], token_budget=token_budget or budget(model)):
            yield [group.rows[place] for place in batch]


def read(
    model: nn.Module,
    batch: Sequence[Encoded],
    sizes: Sequence[int],
    reading: Callable[[bool, Sequence[int]], tuple[Tensor, int]],
) -> tuple[Tensor, int]:
    """What a model says of a batch, group by group.

    Args:
        model: perhaps wrapped.
        batch: B prompts with responses.
        sizes: how many numbers each of them gives.
        reading: of whether rows are packed, and their indices, their numbers one after another and the tokens read.

    Returns:
        (n_total,) the numbers, response after response, and all the tokens read.
    """
    todo = groups(model, [len(item.ids) for item in batch])
    answers = [reading(group.packed, group.rows) for group in todo]
    n_tokens = sum(n for _, n in answers)
    flat = answers[0][0] if len(todo) == 1 else _in_order(todo, [numbers for numbers, _ in answers], sizes)
    for _ in range(_spare_passes(model, len(todo))):
        flat = flat + 0.0 * reading(todo[0].packed, todo[0].rows)[0].sum()
    return flat, n_tokens


def _in_order(todo: Sequence[Group], answers: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    parts = {
        row: part
        for group, numbers in zip(todo, answers, strict=True)
        for row, part in zip(group.rows, numbers.split([sizes[row] for row in group.rows]), strict=True)
    }
    return torch.cat([parts[row] for row in range(len(sizes))])


def _spare_passes(model: nn.Module, n_passes: int) -> int:
    """Passes by which another process has more: what distributes a model waits for each pass in all of them."""
    wrapped = core(model) is not model or isinstance(model, FSDPModule)
    if not (wrapped and is_initialized() and _may_part(model)):
        return 0
    most = torch.tensor(n_passes, device=next(model.parameters()).device)
    all_reduce(most, ReduceOp.MAX)
    return int(most) - n_passes


def _may_part(model: nn.Module) -> bool:
    """Whether some batches are read in several passes."""
    ways = set(_ways(model).values())
    return bool(kind_of(core(model).config, 0)) or "alone" in ways or len(ways) > 1


def _inner(model: nn.Module) -> PreTrainedModel:
    inner = core(model)
    if not isinstance(inner, PreTrainedModel):
        raise ModelError(
            f"a {type(inner).__name__}: expected a model of transformers, perhaps in a wrapper that has it as `module`"
        )
    return inner


def _ways(model: nn.Module) -> dict[int, Way]:
    """By the number of lengths that a row passes, how it is read; as far as known."""
    ways: dict[int, Way] = vars(core(model)).setdefault(_WAYS, {})
    return ways


def _way(model: nn.Module, n_tokens: int) -> Way:
    """How a row of this length is read, tried where it is not known."""
    inner, ways = _inner(model), _ways(model)
    limits = thresholds(inner.config)
    tier = bisect_left(limits, n_tokens)
    if tier and 0 not in ways:
        _way(model, 0)  # first, because what is patched is decided by it
    if tier not in ways:
        forget_lengths(inner)
        give_float32_logits(inner)
        ways[tier] = _tried(inner, n_tokens, passed=limits[tier - 1] if tier else 0)
        _tell(inner, n_tokens, ways[tier])
    return ways[tier]


def _tell(inner: PreTrainedModel, n_tokens: int, way: Way) -> None:
    """Say once of a model that its rows are read one by one."""
    what = f"{type(inner).__name__}: rows"
    if limits := [limit for limit in thresholds(inner.config) if limit < n_tokens]:
        what += f" of more than {limits[-1]:,} tokens"
    if way == "alone":
        warnings.warn(
            f"{what} are read one by one, because in a trial rows that were read together gave other numbers than each "
            "by itself; prompts are read again for each response, so reading takes about as many times as long as a "
            "prompt has responses, and more on a GPU",
            stacklevel=2,
        )
    elif splits_every_length(inner.config, n_tokens):
        warnings.warn(
            f"{what} are read one by one, but for those of equal length, because its rotary embedding (dynamic NTK) "
            "depends on the length of the whole; prompts are read again for each response, so reading takes about as "
            "many times as long as a prompt has responses, and more on a GPU",
            stacklevel=2,
        )


def _tried(inner: PreTrainedModel, n_tokens: int, *, passed: int) -> Way:
    """The fastest way in which rows on trial give what each gives by itself.

    Args:
        inner: the model itself.
        n_tokens: of the row that is to be read.
        passed: the last length named by the configuration that it passes; 0 for none.
    """
    if inner.device.type == "meta":  # its weights are in another process
        return "packed" if patch_forward(inner, examine=lambda model: True) else "padded"
    batch = _on_trial(inner, n_tokens, passed)
    with _evaluated(inner), torch.inference_mode():
        alone = _each_alone(inner, batch)
        again = _each_alone(inner, batch[:2])
        if not _alike(inner, torch.cat(again), torch.cat(alone[:2])):
            raise ModelError(
                f"{type(inner).__name__}: what it says of a text depends on what it has read before, so its numbers "
                "are no property of the text; expected a model that keeps nothing from one pass to the next"
            )
        packs = partial(_together, inner, batch, alone, _read_packed)
        if packs() if is_patched(inner) else patch_forward(inner, examine=lambda model: packs()):
            return "packed"
        return "padded" if _together(inner, batch, alone, _read_padded) else "alone"


def _on_trial(inner: PreTrainedModel, n_tokens: int, passed: int) -> list[Encoded]:
    """Two short responses to a prompt, and where a length is passed, two that pass it."""
    most = max(n_tokens, context_length(inner.config))
    prompts = [_PROMPT]
    if passed:
        length = min(passed + max(_BEYOND[0], int(_BEYOND[1] * passed)), most)
        prompts.append(max(_PROMPT, length - max(_ENDS)))
    rng = np.random.default_rng(0)
    size = inner.config.get_text_config().vocab_size
    batch = []
    for n_prompt in prompts:
        prompt, *ends = (rng.integers(0, size, n, dtype=np.int32) for n in (n_prompt, *_ENDS))
        batch += [
            Encoded(
                name="a trial", ids=np.concatenate([prompt, end]), n_prompt=n_prompt,
                offsets=np.zeros((len(end), 2), np.int32),
            )
            for end in ends
        ]  # fmt: skip
    return batch


def _each_alone(inner: PreTrainedModel, batch: Sequence[Encoded]) -> list[Tensor]:
    """What a plain pass of each row says."""
    if has_output_head(inner):
        return [padded_logprobs(inner, [item]) for item in batch]
    body: Any = inner.base_model
    rows = [padded_ids([item]).to(inner.device) for item in batch]
    states = [body(input_ids=row, use_cache=False).last_hidden_state[0] for row in rows]  # (L, d)
    return [_trial_head(inner, hidden[item.n_prompt :]) for hidden, item in zip(states, batch, strict=True)]


def _together(
    inner: PreTrainedModel,
    batch: Sequence[Encoded],
    alone: Sequence[Tensor],
    reading: Callable[[PreTrainedModel, Sequence[Encoded]], Tensor | None],
) -> bool:
    """Whether rows of one kind that are read together give what each gives alone."""
    kinds = [kind_of(inner.config, len(item.ids)) for item in batch]
    for kind in dict.fromkeys(kinds):
        rows = [row for row, other in enumerate(kinds) if other == kind]
        given = reading(inner, [batch[row] for row in rows])
        if given is None or not _alike(inner, given, torch.cat([alone[row] for row in rows])):
            return False
    return True


def _read_packed(inner: PreTrainedModel, batch: Sequence[Encoded]) -> Tensor | None:
    """What a patched model says of a packed row; None where some layers go another way."""
    packed = pack(batch, least_shared=1)
    tree = Tree(packed.segments)
    given = (
        packed_logprobs(inner, packed, tree)
        if has_output_head(inner)
        else packed_reads(inner, packed, tree, _everywhere(batch), _trial_head)
    )
    return given if tree.calls == inner.config.get_text_config().num_hidden_layers else None


def _read_padded(inner: PreTrainedModel, batch: Sequence[Encoded]) -> Tensor:
    if has_output_head(inner):
        return padded_logprobs(inner, batch)
    return padded_reads(inner, batch, _everywhere(batch), _trial_head)


def _everywhere(batch: Sequence[Encoded]) -> list[Index]:
    return [np.arange(item.n_response) for item in batch]


def _trial_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(n,) of order 1: a head that is not of zeros, as that of a fresh classifier is."""
    signs = 1.0 - 2.0 * (torch.arange(hidden.shape[1], device=hidden.device) % 2)
    return (hidden.float() * signs).sum(1) / math.sqrt(hidden.shape[1])


def _alike(inner: PreTrainedModel, given: Tensor, expected: Tensor) -> bool:
    """Whether numbers differ by rounding only; what is no number in both is alike."""
    error = torch.where(given.isnan() & expected.isnan(), 0.0, (given - expected).abs())
    exact = inner.dtype in (torch.float32, torch.float64)
    return bool(error.max() < _EXACT_ERROR if exact else error.mean() < _ROUNDED_ERROR)


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Without the noise that some models have in training."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, before in training:
            module.training = before
