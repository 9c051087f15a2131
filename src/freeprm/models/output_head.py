"""The output head: logits in float32 of weights and hidden states in 16 bits, and log-probabilities of chosen tokens.

A product of bfloat16 matrices is summed in float32 and then rounded to bfloat16, to eight bits: a logit of 20 moves by
up to 1/16 and its log-probability with it, by more than two near models differ in. So the output head's product is
given in float32 here. The operands are what the model has, and so is the rounding in its layers below.

    way                             where                       the product's own error, next to its size
    float32 out of 16-bit operands  CUDA                        2^-24 a term
    two products of 16 bits         CPUs that multiply tiles    2^-18
    operands made float32           elsewhere                   2^-24 a term

The second one's cost is that of two products, where one in float32 takes as long as six to ten of them.

Log-probabilities are made of hidden states without ever holding the logits of all of them:

    logit = cap * tanh( scale * (W h + b) / cap )        log p(y) = logit_y - log sum exp logit

The logits of some rows and some of the vocabulary are made at a time, used and overwritten, forward and again backward:
for a vocabulary of 128k tokens the (T, V) logits and their gradient would otherwise be the largest tensors of training
by far. On a CPU a block stays in its caches, so that the matrix product is nearly all of the work.
"""

from collections.abc import Iterator
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

_WORDS = 2048
"""Columns of a product that a CPU makes at a time, so that what is made on the way stays in its caches."""


def give_float32_logits(model: nn.Module) -> None:
    """Let a model's own forward make logits that are float32 or better, in 16 bits and under autocast as well; once.

    A head that is no plain `nn.Linear`, such as one with an adapter around it or spread over devices, is left as it is:
    an adapter wraps one that was met before.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    if type(head) is nn.Linear and "forward" not in vars(head):
        # A method, and not a closure: a deep copy of the model has to answer with its own weights.
        head.forward = MethodType(_logits, head)  # type: ignore[method-assign]


def block_bytes(n_rows: int, n_words: int, *, on_cpu: bool) -> int:
    """Bytes of a block of `chosen_logprobs`: the logits of some rows and words, and their softmax, in float32."""
    height, width = _block(n_rows, n_words, on_cpu=on_cpu)
    return 2 * 4 * height * width


def product(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """left @ right, summed and kept in float32 or better; without gradients.

    Args:
        left: (n, d)
        right: (d, m), of the same dtype.
        out: (n, m) float32, or float64 for float64 operands; filled and given back.
    """
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    if left.is_cuda and hasattr(torch.ops.aten.mm, "dtype_out"):  # torch 2.8
        return torch.mm(left, right, out.dtype, out=out)
    if _multiplies_tiles(left):
        some = torch.mm(left, right)
        out.copy_(some)
        # What rounding took away: added up in float32 before it is rounded in its turn, to eight bits of that little.
        return out.add_(some.addmm_(left, right, beta=-1))
    return torch.mm(left.to(out.dtype), right.to(out.dtype), out=out)


def _multiplies_tiles(operand: Tensor) -> bool:
    """Whether a CPU multiplies bfloat16 several times as fast as float32: by AMX."""
    return operand.device.type == "cpu" and operand.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()


def _logits(self: nn.Linear, hidden: Tensor) -> Tensor:
    """The forward of an output head: (..., d) -> (..., V)."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
    if dtype in (torch.float32, torch.float64):
        return functional.linear(hidden, self.weight, self.bias)
    with torch.autocast(device, enabled=False):
        logits: Tensor = _Product.apply(hidden.to(dtype).flatten(0, -2), self.weight.to(dtype))
        logits = logits if self.bias is None else logits + self.bias
    return logits.view(*hidden.shape[:-1], -1)


class _Product(torch.autograd.Function):
    """(n, d), (V, d) -> (n, V) float32; gradients are products in 16 bits, as of any layer."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        logits = hidden.new_empty(len(hidden), len(weight), dtype=torch.float32)
        width = _WORDS if hidden.device.type == "cpu" else len(weight)
        for some, words in zip(logits.split(width, dim=1), weight.split(width), strict=True):
            product(hidden, words.t(), out=some)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        grad = grads[0].to(hidden.dtype)
        of_hidden, of_weight = ctx.needs_input_grad
        return grad @ weight if of_hidden else None, grad.t() @ hidden if of_weight else None


_CPU_ROWS, _CPU_VOCABULARY = 1024, 2048
"""Of a block on the CPU: 8 MB in float32."""
_GPU_BYTES = 256 << 20
"""Of a block on a GPU, which is of the whole vocabulary: fewer kernels."""


def _block(n_rows: int, n_words: int, *, on_cpu: bool) -> tuple[int, int]:
    """Rows and words whose logits are made at a time."""
    if on_cpu:
        return min(n_rows, _CPU_ROWS), min(n_words, _CPU_VOCABULARY)
    return min(n_rows, max(1, _GPU_BYTES // (4 * n_words))), n_words


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
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    with torch.autocast(device, enabled=False):
        logprobs: Tensor = _ChosenLogProbs.apply(hidden, ids, head.weight, head.bias, dtype, readout.scale, readout.cap)
    return logprobs


def logprobs_at(logits: Tensor, ids: Tensor) -> Tensor:
    """(T,) log-softmax of (T, V) logits at (T,) ids, in float32 or better."""
    exact = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return -functional.cross_entropy(exact, ids, reduction="none")


class _ChosenLogProbs(torch.autograd.Function):
    """See `chosen_logprobs`. The backward pass makes each block of logits again from the hidden states.

    Operands are cast to `dtype` in here, so that their gradients, which are summed in float32, are not rounded to it.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, scale: float,
        cap: float | None,
    ) -> Tensor:  # fmt: skip
        ctx.given = hidden.dtype, weight.dtype
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        blocks = _Blocks(hidden, weight, bias, scale, cap)
        norms = torch.full((len(ids),), -torch.inf, dtype=blocks.exact, device=hidden.device)  # (n,) log sum exp
        chosen = torch.zeros_like(norms)
        for rows, words in blocks:
            logits = blocks.logits(rows, words)
            own, columns = _within(ids[rows], words)
            chosen[rows][own] = logits[own, columns]
            norms[rows] = torch.logaddexp(norms[rows], blocks.shares(logits)[1])
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
        blocks = _Blocks(hidden, weight, bias, ctx.scale, ctx.cap)
        for rows, words in blocks:
            logits = blocks.logits(rows, words)
            delta, norm = blocks.shares(logits)
            delta *= (-grad[rows] * (norm - norms[rows]).exp())[:, None]  # grad * ([y = v] - p(v)), but for the next
            own, columns = _within(ids[rows], words)
            delta[own, columns] += grad[rows][own]
            if ctx.cap is not None:
                delta *= 1 - (logits / ctx.cap).square()
            if ctx.scale != 1.0:
                delta *= ctx.scale
            low = delta.to(hidden.dtype)
            if grad_hidden is not None:
                _add_product(grad_hidden[rows], low, weight[words])
            if grad_weight is not None:
                _add_product(grad_weight[words], low.t(), hidden[rows])
            if grad_bias is not None:
                grad_bias[words] += delta.sum(0)
        of_states, of_weights = ctx.given
        return (
            None if grad_hidden is None else grad_hidden.to(of_states), None,
            None if grad_weight is None else grad_weight.to(of_weights),
            None if grad_bias is None else grad_bias.to(of_weights), None, None, None,
        )  # fmt: skip


class _Blocks:
    """Logits by some rows and some words of the vocabulary, in memory made once: fresh memory costs a CPU more than
    what is written into it.

    Args:
        hidden: (n, d)
        weight: (V, d)
        bias: (V,)
        scale: see `Readout`, as for `cap`.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None):
        self._hidden, self._weight, self._bias, self._scale, self._cap = hidden, weight, bias, scale, cap
        self.exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        on_cpu = weight.device.type == "cpu"
        self._height, self._width = _block(len(hidden), len(weight), on_cpu=on_cpu)
        n_cells = self._height * self._width
        self._logits = hidden.new_empty(n_cells, dtype=self.exact)
        self._shares = torch.empty_like(self._logits)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Rows and words of each block."""
        n_rows, n_words = len(self._hidden), len(self._weight)
        for top in range(0, n_rows, max(1, self._height)):
            for left in range(0, n_words, self._width):
                yield slice(top, min(top + self._height, n_rows)), slice(left, min(left + self._width, n_words))

    def logits(self, rows: slice, words: slice) -> Tensor:
        """(rows, words), valid until the next block's."""
        hidden, weight = self._hidden[rows], self._weight[words]
        logits = self._logits[: len(hidden) * len(weight)].view(len(hidden), len(weight))
        product(hidden, weight.t(), out=logits)
        if self._bias is not None:
            logits += self._bias[words]
        if self._scale != 1.0:
            logits *= self._scale
        return logits if self._cap is None else logits.div_(self._cap).tanh_().mul_(self._cap)

    def shares(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, words) the softmax over the block's own words, valid until the next block's; (rows,) log sum exp."""
        # The softmax of torch is one pass that stays in cache; exp by itself takes three times as long on a CPU.
        shares = torch.softmax(logits, -1, out=self._shares[: logits.numel()].view_as(logits))
        return shares, logits.amax(-1) - shares.amax(-1).log()


def _within(ids: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """The rows whose token is in this part of the vocabulary, and its place there."""
    own = ((ids >= words.start) & (ids < words.stop)).nonzero()[:, 0]
    return own, ids[own] - words.start


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
