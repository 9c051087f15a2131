"""Log-probabilities of chosen tokens from hidden states, without ever holding the logits of all of them.

    logit = cap * tanh( scale * (W h + b) / cap )        log p(y) = logit_y - log sum exp logit

The logits of a few rows at a time are made, used and overwritten, forward and again backward: for a vocabulary of
128k tokens the (T, V) logits and their gradient would otherwise be the largest tensors of training by far.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CHUNK_BYTES = {"cpu": 64 << 20}
"""Of logits held at a time, in float32."""
_GPU_CHUNK_BYTES = 512 << 20


class Readout(NamedTuple):
    """How a model makes logits of hidden states."""

    head: nn.Linear
    scale: float = 1.0
    cap: float | None = None


def chosen_logprobs(hidden: Tensor, ids: Tensor, readout: Readout) -> Tensor:
    """log p(y_t) under the softmax of each row's logits, differentiable in hidden states, weight and bias.

    Args:
        hidden: (n, d)
        ids: (n,) the tokens y.
        readout: of the model.

    Returns:
        (n,) float32, or float64 for float64 hidden states.
    """
    head = readout.head
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            weight, bias = head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype)
            return _apply(hidden.to(dtype), ids, weight, bias, readout)
    return _apply(hidden.to(head.weight.dtype), ids, head.weight, head.bias, readout)


def _apply(hidden: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, readout: Readout) -> Tensor:
    logprobs: Tensor = _ChosenLogProbs.apply(hidden, ids, weight, bias, readout.scale, readout.cap)
    return logprobs


class _ChosenLogProbs(torch.autograd.Function):
    """See `chosen_logprobs`. The backward pass makes each chunk's logits again from the hidden states."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None
    ) -> Tensor:
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logprobs = torch.empty(len(ids), dtype=exact, device=hidden.device)
        norms = torch.empty_like(logprobs)
        for rows in _chunks(len(ids), weight):
            logits = _logits(hidden[rows], weight, bias, scale, cap).to(exact)
            norms[rows] = logits.logsumexp(-1)
            logprobs[rows] = logits.gather(1, ids[rows, None])[:, 0] - norms[rows]
        ctx.save_for_backward(hidden, ids, weight, bias, norms)
        ctx.scale, ctx.cap = scale, cap
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        hidden, ids, weight, bias, norms = ctx.saved_tensors
        of_hidden, _, of_weight, of_bias = ctx.needs_input_grad[:4]
        grad_hidden = torch.empty_like(hidden) if of_hidden else None
        # Summed in float32: a bfloat16 sum over chunks would lose most of each one.
        grad_weight = torch.zeros_like(weight, dtype=norms.dtype) if of_weight else None
        grad_bias = torch.zeros_like(bias, dtype=norms.dtype) if of_bias else None
        for rows in _chunks(len(ids), weight):
            raw = _logits(hidden[rows], weight, bias, ctx.scale, ctx.cap)
            delta = (raw.to(norms.dtype) - norms[rows, None]).exp_().neg_()  # d log p / d logit = [y = v] - p(v)
            delta.scatter_add_(1, ids[rows, None], torch.ones_like(delta[:, :1]))
            delta *= grad[rows, None]
            if ctx.cap is not None:
                delta *= 1 - (raw.to(norms.dtype) / ctx.cap).square()
            if ctx.scale != 1.0:
                delta *= ctx.scale
            low = delta.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(low, weight, out=grad_hidden[rows])
            if grad_weight is not None and low.dtype == grad_weight.dtype:
                grad_weight.addmm_(low.t(), hidden[rows])
            elif grad_weight is not None:
                grad_weight += low.t() @ hidden[rows]
            if grad_bias is not None:
                grad_bias += delta.sum(0)
        return (
            grad_hidden, None, None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype), None, None,
        )  # fmt: skip


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None) -> Tensor:
    """(rows, V), in a fresh tensor that the caller may overwrite."""
    logits = nn.functional.linear(hidden, weight, bias)
    if scale != 1.0:
        logits *= scale
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def _chunks(n_rows: int, weight: Tensor) -> Iterator[slice]:
    size = max(1, _CHUNK_BYTES.get(weight.device.type, _GPU_CHUNK_BYTES) // (4 * len(weight)))
    return (slice(start, start + size) for start in range(0, n_rows, size))
