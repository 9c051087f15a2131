"""Token log-probabilities of responses under a causal language model: what everything here is paid in.

Rows are padded on the right. Under a causal mask no token of a response can see the padding after it,
so none is masked; only the positions that predict response tokens go through the output head; and the
log-softmax is taken in float32 whatever the model's dtype.

The largest tensors are the logits, rows x response tokens x vocabulary: 2 GB in bfloat16 for 8 responses of
1,000 tokens under 128k tokens, and, where a gradient is wanted, as much again in float32. A caller bounds
them by the rows that it gives.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from freeprm.errors import NonFiniteError
from freeprm.models.encoding import Encoded

CPU_BUDGET, GPU_BUDGET = 4096, 16_384
"""Tokens in a batch of scoring, unless told otherwise: what a processor's caches take, and what fills a GPU."""


def token_logprobs(model: nn.Module, batch: Sequence[Encoded]) -> Tensor:
    """log pi(y_t | x, y_<t) of every response token, differentiable.

    Args:
        model: a causal language model, possibly wrapped for distributed training.
        batch: B prompts with responses.

    Returns:
        (T_total,) float32 (float64 for a float64 model), response after response.
    """
    unique, places = distinct(batch)
    flat = _forward(model, unique)
    if len(unique) == len(batch):
        return flat
    parts = flat.split([item.n_response for item in unique])
    return torch.cat([parts[place] for place in places])


@torch.inference_mode()
def score_tokens(
    model: nn.Module,
    encoded: Sequence[Encoded],
    *,
    token_budget: int | None = None,
    advance: Callable[[int], None] = lambda n_tokens: None,
) -> list[Tensor]:
    """Token log-probabilities without gradients, in batches of similar length.

    Args:
        model: see `token_logprobs`.
        encoded: any number of prompts with responses, in any order.
        token_budget: tokens in a batch, padding included; a single longer row is a batch of its own. By default
            `CPU_BUDGET` or `GPU_BUDGET`.
        advance: told the tokens of each finished batch; what is given twice is computed once and counted once.

    Returns:
        One (T,) float32 tensor a response on the CPU, in the order given.

    Raises:
        NonFiniteError: a log-probability is NaN or infinite; names the response.
    """
    unique, places = distinct(encoded)
    token_budget = token_budget or (CPU_BUDGET if next(model.parameters()).device.type == "cpu" else GPU_BUDGET)
    results: list[Tensor] = [torch.empty(0)] * len(unique)
    for rows in batches(unique, token_budget=token_budget):
        part = [unique[row] for row in rows]
        flat = _forward(model, part).cpu()
        check_finite(flat, part)
        for row, logps in zip(rows, flat.split([item.n_response for item in part]), strict=True):
            results[row] = logps
        advance(sum(len(item.ids) for item in part))
    return [results[place] for place in places]


def distinct(encoded: Sequence[Encoded]) -> tuple[list[Encoded], list[int]]:
    """Each different prompt and response once, in order of first appearance, and where each one given stands in that.

    Short answers repeat: of 64 samples to a problem of the embedded world a quarter are different.
    """
    places: dict[tuple[bytes, int], int] = {}
    unique: list[Encoded] = []
    index: list[int] = []
    for item in encoded:
        place = places.setdefault((item.ids.tobytes(), item.n_prompt), len(places))
        if place == len(unique):
            unique.append(item)
        index.append(place)
    return unique, index


def batches(encoded: Sequence[Encoded], *, token_budget: int) -> Iterator[list[int]]:
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


def check_finite(logps: Tensor, batch: Sequence[Encoded]) -> None:
    """Refuse NaN and infinite log-probabilities.

    Args:
        logps: (T_total,) as `token_logprobs` gives them.
        batch: the responses that they are of.

    Raises:
        NonFiniteError: names the response and the token.
    """
    finite = logps.isfinite()
    if bool(finite.all()):
        return
    token = int((~finite).nonzero()[0])
    value = logps[token].item()
    for item in batch:
        if token < item.n_response:
            raise NonFiniteError(
                f"{item.name}: the log-probability of its token {token} is {value}; the model's weights or its dtype "
                "are at fault (float16 overflows where bfloat16 does not), or training diverged"
            )
        token -= item.n_response


def _forward(model: nn.Module, batch: Sequence[Encoded]) -> Tensor:
    """(T_total,) token log-probabilities of a batch without repetitions."""
    ids = _padded(batch).to(next(model.parameters()).device, non_blocking=True)  # (B, L)
    start = min(item.n_prompt for item in batch)
    # The first response token is predicted at the last prompt position, hence one more than the tokens from `start` on.
    n_positions = ids.shape[1] - start + 1
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=n_positions).logits
    # Cut again, for the few architectures that ignore `logits_to_keep`. Row by row, so that float32 copies are of one
    # row and not of all; unbound, because the gradient of an index would be a full tensor a row.
    rows = logits[:, -n_positions:].unbind(0)
    return torch.cat([
        _chosen(row[item.n_prompt - start :][: item.n_response], row_ids[item.n_prompt : len(item.ids)])
        for row, row_ids, item in zip(rows, ids, batch, strict=True)
    ])  # fmt: skip


def _chosen(logits: Tensor, ids: Tensor) -> Tensor:
    """(T,) log-softmax of (T, V) logits at (T,) ids, in float32 or better."""
    exact = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return -cross_entropy(exact, ids, reduction="none")


def _padded(batch: Sequence[Encoded]) -> Tensor:
    """(B, L) ids; the padding is never attended nor scored, so any id serves."""
    ids = torch.zeros(len(batch), max(len(item.ids) for item in batch), dtype=torch.long)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.from_numpy(item.ids)
    return ids
