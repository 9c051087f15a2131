"""Staying below a rate: what one request takes, the next ones wait for."""

import asyncio
from time import monotonic


class Pace:
    """At most so many a minute, spread evenly; for one event loop.

    Args:
        per_minute: None for no limit.
    """

    def __init__(self, per_minute: float | None):
        self._seconds_each = 60 / per_minute if per_minute else 0.0
        self._free_at = monotonic()

    async def turn(self, amount: float) -> None:
        """Wait until the rate allows another one, and take this much of it."""
        while (wait := self._free_at - monotonic()) > 0:
            await asyncio.sleep(wait)
        self._free_at = max(self._free_at, monotonic()) + amount * self._seconds_each

    def correct(self, amount: float) -> None:
        """What was taken turned out to be this much more, or less where negative."""
        self._free_at += amount * self._seconds_each

    def pause(self, seconds: float) -> None:
        """Nobody's turn for so long."""
        self._free_at = max(self._free_at, monotonic() + seconds)
