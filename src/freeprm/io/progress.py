"""Progress on stderr: a live bar on a terminal; elsewhere a line a minute, and one at the end."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_SECONDS = 60.0
"""Between two lines without a terminal."""
FIRST_SECONDS = 10.0
"""Before the first of them."""


class Advance(Protocol):
    """Counts `n` more units done; a note or a better guess of the total replaces the one shown."""

    def __call__(self, n: int = 1, note: str = "", total: int | None = None) -> None: ...


def tell(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`40 s`, `17 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def bar(description: str, total: int | None = None, *, unit: str = "items", done: int = 0) -> Iterator[Advance]:
    """A bar that the caller moves.

    Args:
        description: what is being done, e.g. `grade`.
        total: units in all; None if unknown.
        unit: in the plural: `tokens`, `responses`.
        done: units that were finished before; not counted in rate and time left.
    """
    lines = _Lines(description, total, unit, done)
    left, note = TimeRemainingColumn(), TextColumn("{task.fields[note]}")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), left, note
    shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
    task = shown.add_task(description, total=total, completed=done, note="")

    def advance(n: int = 1, note: str = "", total: int | None = None) -> None:
        lines.count(n, note, total)
        shown.update(task, advance=n, note=lines.note, total=lines.total)
        if shown.disable and lines.is_due():
            tell(lines.now())

    try:
        with shown:
            yield advance
    finally:
        if not sys.stderr.isatty():
            tell(lines.last())


@dataclass(slots=True)
class _Lines:
    """Progress as lines, for logs."""

    description: str
    total: int | None
    """The last guess."""
    unit: str
    before: int
    done: int = 0
    note: str = ""
    """The last one given."""
    started: float = field(default_factory=lambda: time.perf_counter())
    due: float = 0.0

    def __post_init__(self) -> None:
        self.due = self.started + min(FIRST_SECONDS, LINE_SECONDS)

    def count(self, n: int, note: str, total: int | None = None) -> None:
        self.done += n
        self.note = note or self.note
        self.total = self.total if total is None else total

    def is_due(self) -> bool:
        return time.perf_counter() >= self.due

    def now(self) -> str:
        now = time.perf_counter()
        self.due = now + LINE_SECONDS
        done = self.before + self.done
        amount = f"{done:,}" if self.total is None else f"{done:,} of {self.total:,}"
        left = ""
        if self.total is not None and self.done:
            seconds = (self.total - done) / self.done * (now - self.started)
            left = f", {timedelta(seconds=round(seconds))} left"
        return f"{self.description}: {amount} {self.unit}, {self._rate(now)}{left}{self._noted()}"

    def last(self) -> str:
        now = time.perf_counter()
        before = f" besides {self.before} from before" if self.before else ""
        amount = f"{self.done} {self.unit}{before} in {now - self.started:.1f} s"
        return f"{self.description}: {amount}, {self._rate(now)}{self._noted()}"

    def _rate(self, now: float) -> str:
        return _rate_text(self.done / max(now - self.started, 1e-9), "")

    def _noted(self) -> str:
        return f", {self.note}" if self.note else ""


class _Rate(ProgressColumn):
    """Units a second, `?` until there is an estimate."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate_text(speed, f" {self._unit}") if speed else f"? {self._unit}/s")


def _rate_text(rate: float, unit: str) -> str:
    """`5.0 rows/s`; of units that take long, `90 s each`."""
    return f"{1 / rate:.0f} s each" if 0 < rate < 0.1 else f"{rate:.1f}{unit}/s"
