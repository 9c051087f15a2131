"""Peak memory of a job, in a process of its own, so that nothing earlier or beside it is counted."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freeprm.errors import BenchmarkError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


def can_measure() -> bool:
    """Whether the system tells a process's peak, and forgets an earlier one."""
    return _STATUS.exists() and os.access(_CLEAR, os.W_OK)


def peak_mib(job: Callable[..., Callable[[], object]], *given: Any, threads: int) -> float:
    """MiB that a job adds at its peak to what its process held after importing what the job needs.

    Args:
        job: a function of a module; given the arguments it returns the work, and only the work is measured, models
            that the work makes included.
        given: the job's arguments, which can be pickled.
        threads: of torch in the process.

    Raises:
        BenchmarkError: the process failed.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sending, job, given, threads))
    process.start()
    sending.close()
    try:
        peak: float = receiving.recv()
    except EOFError as error:
        process.join()
        raise BenchmarkError(
            f"{job}{given}: its process ended with code {process.exitcode} and no figure; its own message is "
            "above, and code -9 means that the memory did not suffice"
        ) from error
    process.join()
    return peak


def _measure(sending: Any, job: Callable[..., Callable[[], object]], given: tuple[Any, ...], threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    work = job(*given)
    _CLEAR.write_text(_FORGET_PEAK, encoding="utf-8")
    before = _kib("VmRSS")
    work()
    sending.send((_kib("VmHWM") - before) / 1024)


def _kib(name: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
