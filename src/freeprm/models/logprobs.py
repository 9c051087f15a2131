"""Token log-probabilities of responses under a causal language model: what scoring and training spend their time on.

Prompts and responses are packed into one row as a prefix tree (see `packing`): no padding, a shared beginning read
once, and the logits of a few rows at a time, never of all. A model that cannot be patched for that (see
`packed_forward`) reads padded rows instead (see `batching`), or one at a time (see `routes`). Either way logits and
log-softmax are float32 or better (see `output_head`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from freeprm.errors import NonFiniteError
from freeprm.models.batching import NOT_FINITE, Advance, first_not_finite, in_batches, padded_logprobs
from freeprm.models.encoding import Encoded
from freeprm.models.packed_forward import Tree, packed_logprobs
from freeprm.models.packing import pack
from freeprm.models.routes import divide, passes, read


def token_logprobs(model: nn.Module, batch: Sequence[Encoded]) -> Tensor:
    """log pi(y_t | x, y_<t) of every response token, differentiable.

    Args:
        model: a causal language model, possibly wrapped for distributed training; what wraps one comes after
            `routes.prepare`.
        batch: B prompts with responses.

    Returns:
        (T_total,) float32 (float64 for a float64 model), response after response.
    """
    unique, places = distinct(batch)
    flat, _ = _read(model, unique)
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
    advance: Advance = lambda n_tokens, n_responses: None,
) -> list[Tensor]:
    """Token log-probabilities without gradients, in batches whose responses share what they can.

    Args:
        model: see `token_logprobs`.
        encoded: any number of prompts with responses, in any order.
        token_budget: tokens in a batch; a single longer row is a batch of its own. By default `batching.budget`.
        advance: see `batching.Advance`.

    Returns:
        One (T,) float32 tensor a response on the CPU, in the order given.

    Raises:
        NonFiniteError: a log-probability is NaN or infinite; names the response.
    """
    if not encoded:
        return []
    unique, places = distinct(encoded)

    def read(rows: Sequence[int]) -> tuple[Sequence[Tensor], int]:
        part = [unique[row] for row in rows]
        flat, n_tokens = _read(model, part)
        flat = flat.cpu()
        check_finite(flat, part)
        return flat.split([item.n_response for item in part]), n_tokens

    batches = divide(model, unique, token_budget=token_budget, reads_logits=True)
    lengths = [len(item.ids) for item in unique]
    results = in_batches(batches, read, lengths=lengths, advance=advance)
    return [results[place] for place in places]


def n_read(model: nn.Module, batch: Sequence[Encoded]) -> int:
    """Tokens that go through a model for a batch: each different beginning once, or each different response."""
    unique, _ = distinct(batch)
    lengths = [len(item.ids) for item in unique]
    return sum(
        len(pack([unique[row] for row in rows])) if packed else sum(lengths[row] for row in rows)
        for packed, rows in passes(model, lengths)
    )


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


def check_finite(logps: Tensor, batch: Sequence[Encoded]) -> None:
    """Refuse NaN and infinite log-probabilities.

    Args:
        logps: (T_total,) as `token_logprobs` gives them.
        batch: the responses that they are of.

    Raises:
        NonFiniteError: names the response and the token.
    """
    bad = first_not_finite(logps, [item.n_response for item in batch])
    if bad is not None:
        raise NonFiniteError(
            f"{batch[bad.row].name}: the log-probability of its token {bad.place} is {bad.value}; {NOT_FINITE}"
        )


def _read(model: nn.Module, batch: Sequence[Encoded]) -> tuple[Tensor, int]:
    """(T_total,) log-probabilities of a batch without repetitions, and the tokens that were read for them."""

    def read_pass(is_packed: bool, rows: Sequence[int]) -> tuple[Tensor, int]:
        part = [batch[row] for row in rows]
        if not is_packed:
            return padded_logprobs(model, part), sum(len(item.ids) for item in part)
        packed = pack(part)
        return packed_logprobs(model, packed, Tree(packed.segments)), len(packed)

    return read(model, batch, [item.n_response for item in batch], read_pass)
