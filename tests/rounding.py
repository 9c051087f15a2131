"""How far two ways to the same float32 numbers may lie apart: as far as the arithmetic explains, on any processor.

A sum of n terms taken in two orders differs by up to n times eps times the largest partial sum, and which order it is
taken in depends on the processor, the batch and the padding. So

    tolerance = eps x magnitude x length

with the largest number that is compared as the magnitude. Most sums come out within a tenth of it (errors add up like
the square root of n: Higham and Mary 2019), and what is read in a wrong way is off by a hundred times as much.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

EPS = 2.0**-23
"""Of float32."""
LENGTH = 5 * 64
"""Additions one behind the other in the largest model that tests read: its layers, each a sum over its width."""


def tolerance(expected: Tensor | Sequence[float] | float, *, length: int = LENGTH) -> float:
    """What numbers of at least order 1 may be off by."""
    numbers = torch.as_tensor(expected).detach().abs()
    return EPS * length * max(1.0, float(numbers.max()) if numbers.numel() else 0.0)


def assert_near(found: Tensor, expected: Tensor, *, length: int = LENGTH) -> None:
    """Tensors of the same shape are the same up to rounding; one of them may be in float64."""
    torch.testing.assert_close(found, expected, atol=tolerance(expected, length=length), rtol=0, check_dtype=False)


def near(expected: Tensor | Sequence[float] | float, *, length: int = LENGTH) -> object:
    """`found == near(expected)`: numbers are the same up to rounding."""
    plain = expected.tolist() if isinstance(expected, Tensor) else expected
    return pytest.approx(plain, abs=tolerance(expected, length=length), rel=0)
