"""Rates, in real time."""

import asyncio
import time

from freeprm.engines.openai.pacing import Pace
from patience import PATIENCE


def seconds_for(pace_per_minute: float | None, amounts: list[float], *, pause: float = 0.0, back: float = 0.0) -> float:
    async def take_all() -> float:
        pace = Pace(pace_per_minute)
        started = time.monotonic()
        pace.pause(pause)
        for number, amount in enumerate(amounts):
            await pace.turn(amount)
            if number == 0:
                pace.correct(-back)
        return time.monotonic() - started

    return asyncio.run(take_all())


def test_what_one_takes_the_next_ones_wait_for():
    # 600 a minute are 0.1 s each: the last of 1 + 2 + 1 begins after the three before it.
    assert 0.3 <= seconds_for(600, [1, 2, 1]) < PATIENCE


def test_what_was_not_used_is_given_back():
    assert seconds_for(600, [3000, 1], back=2999) < PATIENCE  # and not for five minutes


def test_no_limit_never_waits_but_for_a_pause():
    assert seconds_for(None, [1000] * 50) < PATIENCE
    assert 0.3 <= seconds_for(None, [1] * 5, pause=0.3) < PATIENCE


def test_waiting_together_spends_no_turn_twice():
    async def at_once() -> float:
        pace = Pace(1200)
        started = time.monotonic()
        await asyncio.gather(*(pace.turn(1) for _ in range(7)))
        return time.monotonic() - started

    assert 6 * 0.05 <= asyncio.run(at_once()) < PATIENCE
