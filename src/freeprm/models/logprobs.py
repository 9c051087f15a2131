"""Token log-probabilities of responses under a causal language model: what everything here is paid in.

Prompts and responses are packed into one row as a prefix tree (see `packing`): no padding, a shared beginning read
once, and the logits of a few rows at a time, never of all. A model that cannot be taught that (see `readout`) reads
padded rows instead (see `padded`). Either way logits and log-softmax are float32 or better (see `output_head`).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from freeprm.errors import NonFiniteError
from freeprm.models import packing, padded
from freeprm.models.batching import NOT_FINITE, Advance, budget, first_not_finite, in_batches
from freeprm.models.encoding import Encoded
from freeprm.models.output_head import give_float32_logits
from freeprm.models.packing import Packed, pack
from freeprm.models.padded import padded_logprobs
from freeprm.models.readout import core, has_output_head, inputs, is_taught, teach
from freeprm.models.reads import packed_reads, padded_reads
from freeprm.models.tree_attention import Tree

_EXACT_ERROR, _ROUNDED_ERROR = 1e-2, 0.1
"""Nats by which packed and padded rows may differ in a trial: at most in float32, on average in 16 bits."""


def token_logprobs(model: nn.Module, batch: Sequence[Encoded]) -> Tensor:
    """log pi(y_t | x, y_<t) of every response token, differentiable.

    Args:
        model: a causal language model, possibly wrapped for distributed training; what wraps one comes after `prepare`.
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
        token_budget: tokens in a batch; a single longer row is a batch of its own. By default `batching.budget`. A
            batch that does not fit after all is halved.
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

    results = in_batches(divide(model, unique, token_budget=token_budget), read, advance=advance)
    return [results[place] for place in places]


def prepare(model: nn.Module) -> bool:
    """Teach a model to read packed rows, if it can; done unasked, but to be called before FSDP wraps it.

    Returns:
        Whether it reads them.
    """
    known = is_taught(model)
    if known is not None:
        return known
    give_float32_logits(core(model))
    return teach(model, examine=_reads_alike)


def divide(model: nn.Module, encoded: Sequence[Encoded], *, token_budget: int | None) -> Iterator[list[int]]:
    """Indices in batches as a model reads them, packed or padded; see `packing.divide` and `padded.divide`."""
    way = packing.divide if prepare(model) else padded.divide
    return way(encoded, token_budget=token_budget or budget(model))


def n_read(batch: Sequence[Encoded], *, packed: bool) -> int:
    """Tokens that go through a model for a batch: each different beginning once, or each different response."""
    unique, _ = distinct(batch)
    return len(pack(unique)) if packed else sum(len(item.ids) for item in unique)


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
    if not prepare(model):
        return padded_logprobs(model, batch), sum(len(item.ids) for item in batch)
    packed = pack(batch)
    return _answers(model, packed, Tree(packed.segments)), len(packed)


def _answers(model: nn.Module, packed: Packed, tree: Tree) -> Tensor:
    """(T_total,) what a taught model says of a packed row, response after response."""
    answers: Tensor = model(**inputs(packed, tree, next(model.parameters()).device))
    return answers.index_select(0, torch.from_numpy(np.concatenate(packed.places)).to(answers.device))


def _reads_alike(model: nn.Module) -> bool:
    """Whether a taught model says of a packed row, through all of its layers, what it says of padded ones."""
    config = core(model).config.get_text_config()
    rng = np.random.default_rng(0)
    prompt, *ends = (rng.integers(0, config.vocab_size, n, dtype=np.int32) for n in (5, 4, 6))
    batch = [
        Encoded(
            name="a trial", ids=np.concatenate([prompt, end]), n_prompt=5, offsets=np.zeros((len(end), 2), np.int32)
        )
        for end in ends
    ]
    everywhere = [np.arange(item.n_response) for item in batch]
    packed = pack(batch, least_shared=1)
    tree = Tree(packed.segments)
    with torch.inference_mode():
        if has_output_head(core(model)):
            ways = _answers(model, packed, tree), padded_logprobs(model, batch)
        else:
            ways = packed_reads(model, packed, tree, everywhere, _trial), padded_reads(model, batch, everywhere, _trial)
    error = (ways[0] - ways[1]).abs()
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    alike = error.max() < _EXACT_ERROR if exact else error.mean() < _ROUNDED_ERROR
    return tree.calls == config.num_hidden_layers and bool(alike)


def _trial(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(n,) of order 1: a head that is not of zeros, as that of a fresh classifier is."""
    signs = 1.0 - 2.0 * (torch.arange(hidden.shape[1], device=hidden.device) % 2)
    return (hidden.float() * signs).sum(1) / math.sqrt(hidden.shape[1])
