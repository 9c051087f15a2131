"""The speed of a bare matrix product: what any engine on this machine is bounded by."""

from collections.abc import Callable

import torch

_SIDE = {"cpu": 2048, "cuda": 8192}
_TIMES = {"cpu": 4, "cuda": 20}


def matmul_work(dtype: str, *, device: str = "cpu") -> tuple[Callable[[], None], float]:
    """A few products of two square matrices, and the FLOPs that they take.

    Args:
        dtype: of the matrices, by its name in torch.
        device: `cpu` or `cuda`; with as many threads as torch has been given.
    """
    side, times = _SIDE[device], _TIMES[device]
    left, right = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(left)

    def work() -> None:
        for _ in range(times):
            torch.mm(left, right, out=out)

    return work, 2.0 * side**3 * times


def has_bf16(flags: str) -> bool:
    """Whether a processor with these flags (of /proc/cpuinfo) multiplies bfloat16 matrices itself."""
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))
