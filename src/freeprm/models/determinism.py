"""Deterministic algorithms: the same computation on the same machine gives the same bits, or stops.

Seeds alone do not give that on a GPU: sums by atomic additions, and products of matrices that share a workspace between
streams, are taken in an order that differs from run to run. See torch's notes on reproducibility.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from freeprm.errors import ConfigError

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACES = (":4096:8", ":16:8")
"""Those with which cuBLAS repeats itself; the first takes 24 MiB of a GPU."""
_FLASH = "FLASH_ATTENTION_DETERMINISTIC"
"""Read by transformers for the backward pass of flash attention."""


@contextmanager
def algorithms(*, deterministic: bool) -> Iterator[None]:
    """Compute with deterministic algorithms alone, if so told; otherwise, and afterwards, as torch is set.

    Raises:
        ConfigError: an operation has no deterministic algorithm on its device, by its name; or cuBLAS began to work
            with a workspace with which it does not repeat itself.
    """
    if not deterministic:
        yield
        return
    if os.environ.get(_CUBLAS) not in _WORKSPACES:
        if torch.cuda.is_initialized():
            raise ConfigError(
                f"deterministic: {_CUBLAS} is {os.environ.get(_CUBLAS)!r}, and a GPU is in use already; set it to "
                f"{_WORKSPACES[0]} before the process begins"
            )
        os.environ[_CUBLAS] = _WORKSPACES[0]  # read when cuBLAS begins to work
    os.environ[_FLASH] = "1"
    cudnn, before = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    only_warns, flags = torch.is_deterministic_algorithms_warn_only_enabled(), (cudnn.deterministic, cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        operation = str(error).split(" does not have")[0]
        raise ConfigError(
            f"deterministic: {operation} has no deterministic algorithm on this device; choose another objective or "
            "device, or leave `deterministic` out"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)
        cudnn.deterministic, cudnn.benchmark = flags
