"""Clocks: several ways of doing the same thing, run in turns, so that what slows the machine slows all of them.

With them the speed of a bare matrix product, which bounds any engine on the machine.
"""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

clock: Callable[[], float] = time.perf_counter
"""Seconds, of which differences are taken; the command may set the processor time of this process instead."""
_SIDE = {"cpu": 2048, "cuda": 8192}
_TIMES = {"cpu": 4, "cuda": 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast something went, over several rounds."""

    amount: float
    """Done in one round, in tokens or FLOPs."""
    seconds: tuple[float, ...]
    """Of each round."""

    @property
    def median(self) -> float:
        """Amount a second."""
        return self.amount / statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """Amount a second in the fastest round."""
        return self.amount / min(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the fastest round, amount a second."""
        return self.amount / max(self.seconds), self.best


def interleaved(
    ways: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: bool = False
) -> dict[str, tuple[float, ...]]:
    """Seconds of each way in each round; every other round goes through the ways backwards.

    Args:
        ways: each does its work once.
        rounds: how often each is run.
        warm_up: run each once before the clock starts.
    """
    for way in ways.values() if warm_up else ():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds):
        gc.collect()
        for name in list(ways)[:: 1 if index % 2 == 0 else -1]:
            seconds[name].append(timed(ways[name]))
    return {name: tuple(values) for name, values in seconds.items()}


def counted(ways: Mapping[str, Callable[[], int]], *, rounds: int) -> dict[str, Rate]:
    """The rate of each way, `interleaved`, where a way says itself how much it did: not the same in every round."""
    amounts: dict[str, list[int]] = {name: [] for name in ways}

    def counting(name: str) -> Callable[[], object]:
        return lambda: amounts[name].append(ways[name]())

    seconds = interleaved({name: counting(name) for name in ways}, rounds=rounds)
    return {name: Rate(amount=sum(amounts[name]) / rounds, seconds=seconds[name]) for name in ways}


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes, a GPU's included."""
    _wait()
    started = clock()
    work()
    _wait()
    return clock() - started


def _wait() -> None:
    torch = sys.modules.get("torch")  # where it has not been loaded, nothing runs on a GPU
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_work(dtype: str, *, device: str = "cpu") -> tuple[Callable[[], None], float]:
    """A few products of two square matrices, and the FLOPs that they take.

    Args:
        dtype: of the matrices, by its name in torch.
        device: `cpu` or `cuda`; with as many threads as torch has been given.
    """
    import torch

    side, times = _SIDE[device], _TIMES[device]
    left, right = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(left)

    def work() -> None:
        for _ in range(times):
            torch.mm(left, right, out=out)

    return work, 2.0 * side**3 * times
