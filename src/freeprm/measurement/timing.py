"""Clocks: several ways of doing the same thing, run in turns, so that what slows the machine slows all of them."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


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


def interleaved(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, tuple[float, ...]]:
    """Seconds of each way in each round; every other round goes through the ways backwards.

    Args:
        ways: each does its work once; all have been run before, so that nothing is warmed up here.
        rounds: how often each is run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds):
        gc.collect()
        for name in list(ways)[:: 1 if index % 2 == 0 else -1]:
            seconds[name].append(timed(ways[name]))
    return {name: tuple(values) for name, values in seconds.items()}


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes, a GPU's included."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    torch = sys.modules.get("torch")  # where it has not been loaded, nothing runs on a GPU
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
