"""The route of rows through a model: packed, padded, or each alone, and which rows share a pass.

A response's numbers must not depend on what is read beside it or before it. What may share a pass is decided by the
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
from freeprm.models.heads import packed_reads, padded_reads
from freeprm.models.lengths import forget_lengths, kind_of, splits_every_length, thresholds
from freeprm.models.loading import context_length
from freeprm.models.output_head import give_float32_logits
from freeprm.models.packed_forward import Tree, core, has_output_head, is_patched, packed_logprobs, patch_forward
from freeprm.models.packing import pack, packed_batches

Route = Literal["packed", "padded", "alone"]
_ROUTES = "freeprm_routes"
_EXACT_ERROR, _ROUNDED_ERROR = 1e-2, 0.1
"""Nats by which a trial's two readings may differ: at most in float32, on average in 16 bits."""
_PROMPT, _ENDS = 5, (4, 6)  # tokens of a trial
_BEYOND = 8, 0.25  # tokens by which a trial passes a length, at least, and as a share of it


class Pass(NamedTuple):
    """Rows that may be read together."""

    packed: bool
    """As one row with shared beginnings once; else padded."""
    rows: list[int]


def prepare(model: nn.Module, *, longest: int = 0) -> bool:
    """Find a model's route; done when it is first read, but to be called before anything distributed wraps it.

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
    return [_route(model, n_tokens) for n_tokens in (0, *limits, longest)][-1] == "packed"


def passes(model: nn.Module, lengths: Sequence[int]) -> list[Pass]:
    """Rows of these lengths, in tokens, in passes within which none changes what another gives."""
    config = _inner(model).config
    found: dict[object, Pass] = {}
    for row, n_tokens in enumerate(lengths):
        route = _route(model, n_tokens)
        key = row if route == "alone" else (route, kind_of(config, n_tokens))
        found.setdefault(key, Pass(route == "packed", [])).rows.append(row)
    return list(found.values())


def divide(
    model: nn.Module, encoded: Sequence[Encoded], *, token_budget: int | None, reads_logits: bool
) -> Iterator[list[int]]:
    """Indices in batches as a model reads them; see `passes`, `packed_batches`, `padded_batches` and `budget`."""
    for one in passes(model, [len(item.ids) for item in encoded]):
        in_budget = packed_batches if one.packed else padded_batches
        most = token_budget or budget(model, packed=one.packed, reads_logits=reads_logits)
        for batch in in_budget([encoded[row] for row in one.rows], token_budget=most):
            yield [one.rows[place] for place in batch]


def read(
    model: nn.Module,
    batch: Sequence[Encoded],
    sizes: Sequence[int],
    read_pass: Callable[[bool, Sequence[int]], tuple[Tensor, int]],
) -> tuple[Tensor, int]:
    """Numbers of a batch, pass by pass.

    Args:
        model: perhaps wrapped.
        batch: B prompts with responses.
        sizes: how many numbers each of them has.
        read_pass: whether rows are packed, and their indices -> their numbers one after another, and the tokens read.

    Returns:
        (n_total,) the numbers, response after response, and all the tokens read.
    """
    todo = passes(model, [len(item.ids) for item in batch])
    results = [read_pass(one.packed, one.rows) for one in todo]
    flat = results[0][0]
    if len(todo) > 1:
        parts = {
            row: part
            for one, (numbers, _) in zip(todo, results, strict=True)
            for row, part in zip(one.rows, numbers.split([sizes[row] for row in one.rows]), strict=True)
        }
        flat = torch.cat([parts[row] for row in range(len(sizes))])
    for _ in range(_spare_passes(model, len(todo))):
        flat = flat + 0.0 * read_pass(todo[0].packed, todo[0].rows)[0].sum()
    return flat, sum(n_tokens for _, n_tokens in results)


def _spare_passes(model: nn.Module, n_passes: int) -> int:
    """Passes by which another process has more: what distributes a model waits for each pass in all of them."""
    wrapped = core(model) is not model or isinstance(model, FSDPModule)
    if not (wrapped and is_initialized()):
        return 0
    routes = set(_routes(model).values())
    if not kind_of(core(model).config, 0) and "alone" not in routes and len(routes) < 2:  # always one pass
        return 0
    most = torch.tensor(n_passes, device=next(model.parameters()).device)
    all_reduce(most, ReduceOp.MAX)
    return int(most) - n_passes


def _inner(model: nn.Module) -> PreTrainedModel:
    inner = core(model)
    if not isinstance(inner, PreTrainedModel):
        raise ModelError(
            f"a {type(inner).__name__}: expected a model of transformers, perhaps in a wrapper that has it as `module`"
        )
    return inner


def _routes(model: nn.Module) -> dict[int, Route]:
    """By how many of the configuration's `thresholds` a row passes; as far as known."""
    routes: dict[int, Route] = vars(core(model)).setdefault(_ROUTES, {})
    return routes


def _route(model: nn.Module, n_tokens: int) -> Route:
    """The route of a row of this length, tried where it is not known."""
    inner, routes = _inner(model), _routes(model)
    limits = thresholds(inner.config)
    tier = bisect_left(limits, n_tokens)
    if tier and 0 not in routes:
        _route(model, 0)  # first, because what is patched is decided by it
    if tier not in routes:
        forget_lengths(inner)
        give_float32_logits(inner)
        routes[tier] = _tried(inner, n_tokens, passed=limits[tier - 1] if tier else 0)
        _warn(inner, n_tokens, routes[tier])
    return routes[tier]


def _warn(inner: PreTrainedModel, n_tokens: int, route: Route) -> None:
    """Warn once where a model's rows are read one by one."""
    if route == "alone":
        why = ", because in a trial rows that were read together gave other numbers than each by itself"
    elif splits_every_length(inner.config, n_tokens):
        why = (
            ", but for those of equal length, because its rotary embedding (dynamic NTK) depends on the length of the "
            "whole"
        )
    else:
        return
    limits = [limit for limit in thresholds(inner.config) if limit < n_tokens]
    which = f" of more than {limits[-1]:,} tokens" if limits else ""
    warnings.warn(
        f"{type(inner).__name__}: rows{which} are read one by one{why}; prompts are read again for each response, so "
        "reading takes about as many times as long as a prompt has responses, and more on a GPU",
        stacklevel=2,
    )


def _tried(inner: PreTrainedModel, n_tokens: int, *, passed: int) -> Route:
    """The fastest route on which trial rows give what each gives by itself.

    Args:
        inner: the model itself.
        n_tokens: of the row that is to be read.
        passed: the last of the configuration's `thresholds` that it passes; 0 for none.
    """
    if inner.device.type == "meta":  # its weights are in another process
        return "packed" if patch_forward(inner, examine=lambda model: True) else "padded"
    batch = _trial_rows(inner, n_tokens, passed)
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


def _trial_rows(inner: PreTrainedModel, n_tokens: int, passed: int) -> list[Encoded]:
    """Two short responses to a prompt, and two that pass a length where one is passed."""
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
    """Numbers of a plain pass of each row: log-probabilities, or reads of a model without an output head."""
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
    """Numbers of a packed row from a patched model; None where some layers attend in another way."""
    packed = pack(batch, least_shared=1)
    tree = Tree(packed.segments)
    if has_output_head(inner):
        given = packed_logprobs(inner, packed, tree)
    else:
        everywhere = [np.arange(item.n_response) for item in batch]
        given = packed_reads(inner, packed, tree, everywhere, _trial_head)
    return given if tree.calls == inner.config.get_text_config().num_hidden_layers else None


def _read_padded(inner: PreTrainedModel, batch: Sequence[Encoded]) -> Tensor:
    if has_output_head(inner):
        return padded_logprobs(inner, batch)
    return padded_reads(inner, batch, [np.arange(item.n_response) for item in batch], _trial_head)


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
    """Without the noise of training (dropout, routers)."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, before in training:
            module.training = before
