"""Any number of responses through a model, in batches that fit: how log-probabilities and values are read alike."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from freeprm.models.readout import core

CPU_BUDGET, GPU_BUDGETS = 4096, (4096, 131_072)
"""Tokens in a batch of scoring, unless told otherwise: what a processor's caches take; on a GPU between these two,
as much as half of its free memory holds."""

NOT_FINITE = (
    "the model's weights or its dtype are at fault (float16 overflows where bfloat16 does not), or training diverged"
)
"""Why a model gives a number that is none, for messages."""
Advance = Callable[[int, int], None]
"""Told of each finished batch the tokens that went through the model, and the different responses."""


class NotFinite(NamedTuple):
    """A number that a model should not give."""

    row: int
    place: int
    """Within the row's numbers."""
    value: float


def in_batches(
    batches: Iterable[Sequence[int]], read: Callable[[Sequence[int]], tuple[Sequence[Tensor], int]], *, advance: Advance
) -> dict[int, Tensor]:
    """What a model says of each row, batch after batch; a batch that does not fit the memory is halved.

    Args:
        batches: indices of rows.
        read: of a batch, one tensor a row, and the tokens that were read.
        advance: see `Advance`.

    Returns:
        By row.

    Raises:
        OutOfMemoryError: a single row does not fit.
    """
    results: dict[int, Tensor] = {}
    for batch in batches:
        todo = [batch]
        while todo:
            rows = todo.pop()
            try:
                parts, n_tokens = read(rows)
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                todo += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                continue
            results.update(zip(rows, parts, strict=True))
            advance(n_tokens, len(rows))
    return results


def budget(model: nn.Module) -> int:
    """Tokens in a batch that a model on its device should read."""
    weight = next(model.parameters())
    if weight.device.type == "cpu":
        return CPU_BUDGET
    least, most = GPU_BUDGETS
    if weight.device.type != "cuda":
        return least
    config = core(model).config.get_text_config()
    # What the widest place of a layer holds of a token: the hidden states, and the two halves of a gated MLP.
    width: int = 4 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    free, _ = torch.cuda.mem_get_info(weight.device)
    return min(max(free // 2 // (width * weight.dtype.itemsize), least), most)


def first_not_finite(numbers: Tensor, sizes: Sequence[int]) -> NotFinite | None:
    """The first NaN or infinity among the numbers of rows, row after row."""
    finite = numbers.isfinite()
    if bool(finite.all()):
        return None
    at = int((~finite).nonzero()[0])
    value = numbers[at].item()
    row, start = next((row, start) for row, start in _starts(sizes) if at < start + sizes[row])
    return NotFinite(row, at - start, value)


def _starts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for row, size in enumerate(sizes):
        yield row, start
        start += size
