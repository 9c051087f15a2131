"""The allocator of a process. What jemalloc, where that is it (see `freeprm.__main__`), does with the memory of tensors
that are gone is this:

By default it gives the pages of each large tensor back to the system at once, and the next tensor's have to be made and
cleared again, 4 KB at a time: 45 % of the time of reading with a model of half a billion weights on a CPU. While
batches are read that have much the same sizes, it keeps them. In training, where no two steps are alike, what is kept
grows, and it gives them back as ever.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_KINDS = ("dirty", "muzzy")
_DEFAULTS = "arenas"
"""Of arenas that are made later."""


def has_slow_malloc() -> bool:
    """Whether memory is glibc's: slow where no two steps are alike, and full of holes; see `freeprm.__main__`."""
    return platform.libc_ver()[0] == "glibc" and "malloc" not in os.environ.get("LD_PRELOAD", "")


@contextmanager
def kept_pages(library: Any = None) -> Iterator[None]:
    """Let jemalloc keep the pages that are freed inside; then as before. Without jemalloc nothing happens.

    Args:
        library: has jemalloc's `mallctl`; what the process has loaded, by default.
    """
    if library is None and sys.platform != "win32":
        library = ctypes.CDLL(None)
    mallctl = getattr(library, "mallctl", None)
    if mallctl is None:
        yield
        return
    n_arenas = ctypes.c_uint()
    _get(mallctl, "arenas.narenas", n_arenas)
    names = [
        f"{of}.{kind}_decay_ms"
        for of in (_DEFAULTS, *(f"arena.{index}" for index in range(n_arenas.value)))
        for kind in _KINDS
    ]
    before = {}
    for name in names:
        decay = ctypes.c_ssize_t()
        if _get(mallctl, name, decay):  # an arena that no thread has used yet has none
            before[name] = decay.value
            _set(mallctl, name, -1)
    try:
        yield
    finally:
        for name, decay_ms in before.items():
            _set(mallctl, name, decay_ms)


def _get(mallctl: Any, name: str, into: Any) -> bool:
    size = ctypes.c_size_t(ctypes.sizeof(into))
    return bool(mallctl(name.encode(), ctypes.byref(into), ctypes.byref(size), None, ctypes.c_size_t(0)) == 0)


def _set(mallctl: Any, name: str, decay_ms: int) -> None:
    value = ctypes.c_ssize_t(decay_ms)
    mallctl(name.encode(), None, None, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))
