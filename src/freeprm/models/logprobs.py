"""Token log-probabilities of responses under a causal language model: what everything here is paid in.

Prompts and responses are packed into one row as a prefix tree (see `packing`): no padding, a shared beginning read
once, and the logits of a few rows at a time, never of all. A model that cannot be taught that (see `readout`) reads
padded rows instead (see `padded`). Either way the log-softmax is taken in float32 or better.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from freeprm.errors import NonFiniteError
from freeprm.models import packing, padded
from freeprm.models.encoding import Encoded
from freeprm.models.packing import Packed, pack
from freeprm.models.padded import padded_logprobs
from freeprm.models.readout import core, inputs, is_taught, teach
from freeprm.models.tree_attention import Tree

CPU_BUDGET, GPU_BUDGETS = 4096, (4096, 131_072)
"""Tokens in a batch of scoring, unless told otherwise: what a processor's caches take; on a GPU between these two,
as much as half of its free memory holds."""

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
    advance: Callable[[int, int], None] = lambda n_tokens, n_responses: None,
) -> list[Tensor]:
    """Token log-probabilities without gradients, in batches whose responses share what they can.

    Args:
        model: see `token_logprobs`.
        encoded: any number of prompts with responses, in any order.
        token_budget: tokens in a batch; a single longer row is a batch of its own. By default `CPU_BUDGET`, or what
            the GPU's free memory allows. A batch that does not fit after all is halved.
        advance: told of each finished batch the tokens that went through the model, and the different responses.

    Returns:
        One (T,) float32 tensor a response on the CPU, in the order given.

    Raises:
        NonFiniteError: a log-probability is NaN or infinite; names the response.
    """
    if not encoded:
        return []
    unique, places = distinct(encoded)
    divide = packing.divide if prepare(model) else padded.divide
    results: list[Tensor] = [torch.empty(0)] * len(unique)
    todo = list(divide(unique, token_budget=token_budget or _budget(model)))[::-1]
    while todo:
        rows = todo.pop()
        part = [unique[row] for row in rows]
        try:
            flat, n_tokens = _read(model, part)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            todo += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
            continue
        flat = flat.cpu()
        check_finite(flat, part)
        for row, logps in zip(rows, flat.split([item.n_response for item in part]), strict=True):
            results[row] = logps
        advance(n_tokens, len(part))
    return [results[place] for place in places]


def prepare(model: nn.Module) -> bool:
    """Teach a model to read packed rows, if it can; done unasked, but to be called before FSDP wraps it.

    Returns:
        Whether it reads them.
    """
    known = is_taught(model)
    return teach(model, examine=_reads_alike) if known is None else known


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


def _budget(model: nn.Module) -> int:
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
    packed = pack(batch, least_shared=1)
    tree = Tree(packed.segments)
    with torch.inference_mode():
        error = (_answers(model, packed, tree) - padded_logprobs(model, batch)).abs()
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    alike = error.max() < _EXACT_ERROR if exact else error.mean() < _ROUNDED_ERROR
    return tree.calls == config.num_hidden_layers and bool(alike)
