"""What a benchmark gives (`Row`) and what it must be (`Benchmark`).

A benchmark runs our way and a peer's side by side in one process, checks first that both give the same numbers, and
yields a row for each comparison. It prints and writes nothing: that is the command's business.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from freeprm.measurement.timing import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison."""

    name: str
    """`subject/peer: conditions`, e.g. `scoring/released scorer: 50M, V=128k, N=64, prompt 150, float32`."""
    ours: float | None
    """Our figure, in `unit`; None where it was not measured, and `missing` says why."""
    peer: float | None
    """The figure compared with, in `unit`: the peer's, a limit, or what is required."""
    ratio: float | None
    """How many times better ours is: ours / peer where more is better, peer / ours where less is (memory, seconds)."""
    target: float | None
    """The least ratio that is aimed at; None for a comparison without a target."""
    unit: str
    """`tokens/s`, `MiB`, ..."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else was measured: spread, MFU, peak memory, sizes, hardware. Values that JSON holds."""
    missing: str | None = None
    """Why a figure is None."""

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches its target; None where there is no target or no ratio."""
        return None if self.target is None or self.ratio is None else self.ratio >= self.target


class Benchmark(Protocol):
    """Measures one subject; a file in this folder sets `PLUGIN` to one."""

    def __call__(self, *, quick: bool) -> Iterator[Row]:
        """Rows, each as soon as it is measured.

        Args:
            quick: sizes for a look in half a minute, instead of those that the targets are stated for.

        Raises:
            BenchmarkError: ours and the peer's numbers differ, so their speed cannot be compared.
        """
        ...


def faster(
    name: str, *, ours: Rate, peer: Rate, details: Mapping[str, Any], target: float | None = None,
    unit: str = "tokens/s",
) -> Row:  # fmt: skip
    """The row of two ways that were run in turns: medians over the rounds, and the spread of both."""
    return Row(
        name=name, ours=ours.median, peer=peer.median, ratio=ours.median / peer.median, target=target, unit=unit,
        details={"rounds": len(ours.seconds), "ours_spread": ours.spread, "peer_spread": peer.spread, **details},
    )  # fmt: skip


def required(name: str, *, ours: Rate, least: float, details: Mapping[str, Any], unit: str = "tokens/s") -> Row:
    """The row of a rate that has to reach a given one."""
    return Row(
        name=name, ours=ours.median, peer=least, ratio=ours.median / least, target=1.0, unit=unit,
        details={"rounds": len(ours.seconds), "ours_spread": ours.spread, **details},
    )  # fmt: skip
