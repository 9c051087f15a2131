"""Waiting in tests: for a condition, never for a time that a machine with other work to do may exceed."""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds after which something is taken to hang. What passes takes a moment; only what hangs takes so long."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again until it holds; fail rather than wait for ever."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, "this never came to be"
        time.sleep(0.02)
