"""Logits in float32, of weights and hidden states in 16 bits.

A product of bfloat16 matrices is summed in float32 and then rounded to bfloat16, to eight bits: a logit of 20 moves by
up to 1/16 and its log-probability with it, by more than two near models differ in. So the output head's product is
given in float32 here. The operands are what the model has, and so is the rounding in its layers below.

    way                             where                       the product's own error, next to its size
    float32 out of 16-bit operands  CUDA                        2^-24 a term
    two products of 16 bits         CPUs that multiply tiles    2^-18
    operands made float32           elsewhere                   2^-24 a term

The second one's cost is that of two products, where one in float32 takes as long as six to ten of them.
"""

from types import MethodType
from typing import Any

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
