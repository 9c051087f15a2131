"""The time that a run has taken, sitting by sitting, as its manifest keeps it."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

SAVE_SECONDS = 5.0
"""How often the time of a sitting is written down while rows are appended. A killed sitting loses no more of it, or
the time since its last rows where that is longer."""

Sitting = Mapping[str, Any]
"""`started` (UTC), `seconds`, and `repaired` where files had to be."""


class Stopwatch:
    """Times the last sitting of a run, from when this was made."""

    def __init__(self) -> None:
        self._started = self._saved = time.perf_counter()

    def begin(self, earlier: Sequence[Sitting], *, repaired: Sequence[str]) -> list[Sitting]:
        """All sittings with the one that begins."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return [*earlier, {"started": started, "seconds": 0.0, **({"repaired": list(repaired)} if repaired else {})}]

    def read(self, sittings: Sequence[Sitting]) -> list[Sitting]:
        """All sittings, the last one with its time so far; it is not due again for a while."""
        *earlier, last = sittings
        self._saved = time.perf_counter()
        return [*earlier, {**last, "seconds": round(self._saved - self._started, 3)}]

    def is_due(self) -> bool:
        """The time is to be written down again."""
        return time.perf_counter() - self._saved > SAVE_SECONDS


def total_seconds(sittings: Sequence[Sitting]) -> float:
    """Of all sittings."""
    return round(sum(float(sitting["seconds"]) for sitting in sittings), 3)
