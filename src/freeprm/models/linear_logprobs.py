"""Log-probabilities of chosen tokens from hidden states, without ever holding the logits of all of them.

    logit = cap * tanh( scale * (W h + b) / cap )        log p(y) = logit_y - log sum exp logit

The logits of some rows and some of the vocabulary are made at a time, used and overwritten, forward and again backward:
for a vocabulary of 128k tokens the (T, V) logits and their gradient would otherwise be the largest tensors of training
by far. On a CPU a block stays in its caches, so that the matrix product is nearly all of the work.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CPU_ROWS, _CPU_VOCABULARY = 512, 4096
"""Of a block on the CPU: 8 MB in float32."""
_GPU_BYTES = 512 << 20
"""Of a block on a GPU, which is of the whole vocabulary: fewer kernels."""


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
    """See `chosen_logprobs`. The backward pass makes each block of logits again from the hidden states."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None
    ) -> Tensor:
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        norms = torch.full((len(ids),), -torch.inf, dtype=exact, device=hidden.device)  # (n,) log sum exp
        chosen = torch.zeros_like(norms)
        memory = _memory(hidden, weight)
        for rows, words in _blocks(len(ids), weight):
            part = None if bias is None else bias[words]
            logits = _logits(hidden[rows], weight[words], part, memory, scale=scale, cap=cap).to(exact)
            own, columns = _within(ids[rows], words)
            chosen[rows][own] = logits[own, columns]
            top = logits.amax(-1)  # (rows,)
            total = logits.sub_(top[:, None]).exp_().sum(-1)
            norms[rows] = torch.logaddexp(norms[rows], top + total.log())
        ctx.save_for_backward(hidden, ids, weight, bias, norms)
        ctx.scale, ctx.cap = scale, cap
        return chosen - norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        hidden, ids, weight, bias, norms = ctx.saved_tensors
        of_hidden, _, of_weight, of_bias = ctx.needs_input_grad[:4]
        # Summed in float32: a bfloat16 sum over blocks would lose most of each one.
        grad_hidden = torch.zeros_like(hidden, dtype=norms.dtype) if of_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=norms.dtype) if of_weight else None
        grad_bias = torch.zeros_like(bias, dtype=norms.dtype) if of_bias else None
        memory = _memory(hidden, weight)
        for rows, words in _blocks(len(ids), weight):
            part = None if bias is None else bias[words]
            logits = _logits(hidden[rows], weight[words], part, memory, scale=ctx.scale, cap=ctx.cap)
            delta = _of_logits(logits.to(norms.dtype), norms[rows], grad[rows], _within(ids[rows], words), cap=ctx.cap)
            if ctx.scale != 1.0:
                delta *= ctx.scale
            low = delta.to(hidden.dtype)
            if grad_hidden is not None:
                _add_product(grad_hidden[rows], low, weight[words])
            if grad_weight is not None:
                _add_product(grad_weight[words], low.t(), hidden[rows])
            if grad_bias is not None:
                grad_bias[words] += delta.sum(0)
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype), None,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype), None, None,
        )  # fmt: skip


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, memory: Tensor, *, scale: float, cap: float | None
) -> Tensor:
    """(rows, words), written into the memory, where the caller may overwrite them."""
    logits = memory[: len(hidden) * len(weight)].view(len(hidden), len(weight))
    torch.mm(hidden, weight.t(), out=logits)
    if bias is not None:
        logits += bias
    if scale != 1.0:
        logits *= scale
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def _of_logits(logits: Tensor, norms: Tensor, grad: Tensor, own: tuple[Tensor, Tensor], *, cap: float | None) -> Tensor:
    """(rows, words) the gradient before cap and scale: grad * ([y = v] - p(v)), through the tanh; overwrites logits."""
    slope = None if cap is None else 1 - (logits / cap).square()
    delta = logits.sub_(norms[:, None]).exp_().mul_(-grad[:, None])
    delta[own] += grad[own[0]]
    return delta if slope is None else delta.mul_(slope)


def _memory(hidden: Tensor, weight: Tensor) -> Tensor:
    """Room for a block, made once: fresh memory costs a CPU more than what is written into it."""
    height, width = _block(weight)
    return hidden.new_empty(min(height, len(hidden)) * width)


def _within(ids: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """The rows whose token is in this part of the vocabulary, and its place there."""
    own = ((ids >= words.start) & (ids < words.stop)).nonzero()[:, 0]
    return own, ids[own] - words.start


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _blocks(n_rows: int, weight: Tensor) -> Iterator[tuple[slice, slice]]:
    height, width = _block(weight)
    for top in range(0, n_rows, height):
        for left in range(0, len(weight), width):
            yield slice(top, min(top + height, n_rows)), slice(left, min(left + width, len(weight)))


def _block(weight: Tensor) -> tuple[int, int]:
    """Rows and words of a block."""
    if weight.device.type == "cpu":
        return _CPU_ROWS, min(_CPU_VOCABULARY, len(weight))
    return max(1, _GPU_BYTES // (4 * len(weight))), len(weight)
