"""Rows through a model in batches that fit, and the padded ones: for models that cannot read packed rows.

Rows are padded on the right. Under a causal mask no token of a response can see the padding after it, so none is
masked; only the positions that predict response tokens go through the output head. The largest tensors are the logits,
rows x response tokens x vocabulary; a caller bounds them by the rows that it gives.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedConfig

from freeprm.errors import ConfigError
from freeprm.io.progress import tell
from freeprm.models.allocator import kept_pages
from freeprm.models.encoding import Encoded
from freeprm.models.output_head import block_bytes, logprobs_at
from freeprm.models.packed_forward import core

CPU_BUDGET, OTHER_BUDGET, MOST_ON_GPU = 4096, 4096, 131_072
"""Default tokens in a batch: what a processor's caches take; on a GPU as many as half of its free memory holds, up to
so many."""
NOT_FINITE = (
    "the model's weights or its dtype are at fault (float16 overflows where bfloat16 does not), or training diverged"
)
"""Why a model gives NaN or infinity, for messages."""
Advance = Callable[[int, int], None]
"""Called after each batch with the tokens that went through the model, and the different responses."""


def padded_logprobs(model: nn.Module, batch: Sequence[Encoded]) -> Tensor:
    """log pi(y_t | x, y_<t) of every response token, differentiable.

    Args:
        model: a causal language model, possibly wrapped for distributed training.
        batch: B prompts with responses.

    Returns:
        (T_total,) float32 (float64 for a float64 model), response after response.
    """
    ids = padded_ids(batch).to(next(model.parameters()).device, non_blocking=True)  # (B, L)
    start = min(item.n_prompt for item in batch)
    # The first response token is predicted at the last prompt position, hence one more than the tokens from `start` on.
    n_positions = ids.shape[1] - start + 1
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=n_positions).logits
    # Cut again, for the few architectures that ignore `logits_to_keep`. Row by row, so that float32 copies are of one
    # row and not of all; unbound, because the gradient of an index would be a full tensor a row.
    rows = logits[:, -n_positions:].unbind(0)
    return torch.cat([
        logprobs_at(row[item.n_prompt - start :][: item.n_response], row_ids[item.n_prompt : len(item.ids)])
        for row, row_ids, item in zip(rows, ids, batch, strict=True)
    ])  # fmt: skip


class Row(Protocol):
    """Anything with token ids."""

    @property
    def ids(self) -> NDArray[np.int32]:
        """(L,)"""
        ...


def padded_batches(encoded: Sequence[Row], *, token_budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length whose padded size stays within the budget; longest first.

    Longest first, so that a batch that does not fit the memory fails at once.
    """
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row].ids))
    batch: list[int] = []
    for row in order:
        if batch and len(encoded[batch[0]].ids) * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded_ids(batch: Sequence[Row]) -> Tensor:
    """(B, L) ids; the padding is never attended nor scored, so any id serves."""
    ids = torch.zeros(len(batch), max(len(item.ids) for item in batch), dtype=torch.long)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.from_numpy(item.ids)
    return ids


class NotFinite(NamedTuple):
    """Where a NaN or infinity stands."""

    row: int
    place: int
    """Within the row's numbers."""
    value: float


@kept_pages()
def in_batches(
    batches: Iterable[Sequence[int]], read: Callable[[Sequence[int]], tuple[Sequence[Tensor], int]], *,
    lengths: Sequence[int], advance: Advance,
) -> dict[int, Tensor]:  # fmt: skip
    """Results of each row, batch after batch; one that does not fit the memory is halved, and so are all later ones
    that are larger than its halves.

    Args:
        batches: indices of rows.
        read: of a batch, one tensor a row, and the tokens that were read.
        lengths: tokens of each row.
        advance: see `Advance`.

    Returns:
        By row.

    Raises:
        OutOfMemoryError: a single row does not fit.
    """
    results: dict[int, Tensor] = {}
    most = math.inf
    for batch in batches:
        todo = [batch]
        while todo:
            rows = todo.pop()
            size = sum(lengths[row] for row in rows)
            if size <= most or len(rows) == 1:
                try:
                    parts, n_tokens = read(rows)
                except torch.OutOfMemoryError:
                    if len(rows) == 1:
                        raise
                    most = max(size // 2, 1)
                    tell(f"out of memory with {size:,} tokens at a time: going on with {most:,} (--token-budget)")
                else:
                    results.update(zip(rows, parts, strict=True))
                    advance(n_tokens, len(rows))
                    continue
            todo += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return results


def budget(model: nn.Module, *, packed: bool = True, reads_logits: bool = True) -> int:
    """Default tokens in a batch, for a model on its device.

    Args:
        model: a model.
        packed: rows are packed, so that logits are made block by block; padded ones have theirs all at once.
        reads_logits: log-probabilities are read, and not values.
    """
    weight = next(model.parameters())
    if weight.device.type == "cpu":
        return CPU_BUDGET
    if weight.device.type != "cuda":
        return OTHER_BUDGET
    free, _ = torch.cuda.mem_get_info(weight.device)
    return min(max(_within(free, model, packed=packed, reads_logits=reads_logits), 1), MOST_ON_GPU)


def budget_within(max_memory: int, models: Sequence[nn.Module], *, packed: bool, reads_logits: bool) -> int:
    """Tokens in a batch with which models and a batch take no more than so many bytes of a device.

    Args:
        max_memory: the bytes.
        models: that are loaded; those on one device count together.
        packed, reads_logits: see `budget`.

    Raises:
        ConfigError: the models alone, or with a token, take more.
    """
    held: Counter[torch.device] = Counter()
    for model in {id(model): model for model in models}.values():
        for weight in model.parameters():
            held[weight.device] += weight.nbytes
    most = max(held.values())
    n_tokens = min(_within(max_memory - most, model, packed=packed, reads_logits=reads_logits) for model in models)
    if n_tokens < 1:
        raise ConfigError(
            f"max_memory: is {max_memory / 2**30:.3g} GiB, but its models take {most / 2**30:.3g} GiB, and nothing "
            "is left for a batch; give more, or 16 bits a weight (--dtype bfloat16)"
        )
    return n_tokens


def token_bytes(config: PreTrainedConfig, *, itemsize: int, padded_logits: bool) -> int:
    """What a token of a batch takes at the widest place of a pass without gradients: hidden states and the two halves
    of a gated MLP; and, of padded rows, its logits in float32 and, in the row whose turn it is, their log-softmax.

        s (4 d + 3 f) [+ 4 V + 4 V]      bytes, of numbers of s bytes

    Args:
        config: of the text model.
        itemsize: s.
        padded_logits: log-probabilities are read of padded rows.
    """
    width: int = 4 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    return itemsize * width + (8 * config.vocab_size if padded_logits else 0)


def _within(free: int, model: nn.Module, *, packed: bool, reads_logits: bool) -> int:
    """Tokens whose batch takes what is free, with as much again for what an allocator holds besides, and a block of
    logits: of so many rows, up to the most that a block has."""
    config, weight = core(model).config.get_text_config(), next(model.parameters())
    size = 2 * token_bytes(config, itemsize=weight.dtype.itemsize, padded_logits=reads_logits and not packed)
    if not (packed and reads_logits):
        return free // size
    row, most = (
        block_bytes(n_rows, config.vocab_size, on_cpu=weight.device.type == "cpu") for n_rows in (1, MOST_ON_GPU)
    )
    return max(free // (size + row), (free - most) // size)


def first_not_finite(numbers: Tensor, sizes: Sequence[int]) -> NotFinite | None:
    """The first NaN or infinity among the numbers of rows, row after row."""
    finite = numbers.isfinite()
    if bool(finite.all()):
        return None
    at = place = int((~finite).nonzero()[0])
    row = 0
    while place >= sizes[row]:
        place -= sizes[row]
        row += 1
    return NotFinite(row, place, numbers[at].item())
