"""The time that a run has taken, session by session, as its manifest keeps it."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

SAVE_SECONDS = 5.0
"""How often the time of a session is written down while rows are appended. A killed session loses no more of it, or
the time since its last rows where that is longer."""

Session = Mapping[str, Any]
"""`started` (UTC), `seconds`, and `repaired` where files had to be."""


class Stopwatch:
    """Times the last session of a run, from when this was made."""

    def __init__(self) -> None:
        self._started = self._saved = time.perf_counter()

    def begin(self, earlier: Sequence[Session], *, repaired: Sequence[str]) -> list[Session]:
        """All sessions with the one that begins."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return [*earlier, {"started": started, "seconds": 0.0, **({"repaired": list(repaired)} if repaired else {})}]

    def read(self, sessions: Sequence[Session]) -> list[Session]:
        """All sessions, the last one with its time so far; it is not due again for a while."""
        *earlier, last = sessions
        self._saved = time.perf_counter()
        return [*earlier, {**last, "seconds": round(self._saved - self._started, 3)}]

    def is_due(self) -> bool:
        """The time is to be written down again."""
        return time.perf_counter() - self._saved > SAVE_SECONDS


def total_seconds(sessions: Sequence[Session]) -> float:
    """Of all sessions."""
    return round(sum(float(session["seconds"]) for session in sessions), 3)
