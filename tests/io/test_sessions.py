"""The time of a run over its sessions."""

import time

import pytest

from freeprm.io import sessions
from freeprm.io.sessions import Stopwatch, total_seconds
from patience import PATIENCE


def test_the_last_sitting_is_timed_and_earlier_ones_stand():
    watch = Stopwatch()
    earlier = [{"started": "2026-01-01T00:00:00+00:00", "seconds": 2.5}]
    begun = watch.begin(earlier, repaired=["rows.jsonl"])
    assert begun[0] == earlier[0]
    assert (begun[1]["seconds"], begun[1]["repaired"]) == (0.0, ["rows.jsonl"])
    time.sleep(0.05)
    now = watch.read(begun)
    assert now[0] == earlier[0]
    assert 0.05 <= now[1]["seconds"] < PATIENCE
    assert total_seconds(now) == pytest.approx(2.5 + now[1]["seconds"])
    assert "repaired" not in watch.begin([], repaired=[])[0]


def test_time_is_due_to_be_written_down_now_and_then(monkeypatch: pytest.MonkeyPatch):
    watch = Stopwatch()
    assert not watch.is_due()
    monkeypatch.setattr(sessions, "SAVE_SECONDS", 0.0)
    assert watch.is_due()
