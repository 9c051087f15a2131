"""Progress of long work, on stderr: a live bar on a terminal; elsewhere a line a minute, and one at the end."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")
LINE_SECONDS = 60.0
"""Between two lines where there is no terminal."""
FIRST_SECONDS = 10.0
"""Until the first of them."""


class Advance(Protocol):
    """Counts `n` more units done; a note, and a better guess of the total, replace what is shown where given."""

    def __call__(self, n: int = 1, note: str = "", total: int | None = None) -> None: ...


def tell(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def track(iterable: Iterable[Item], *, description: str, total: int | None = None) -> Iterator[Item]:
    """The items as they are, counted as each one comes back for the next.

    Args:
        iterable: what to go through.
        description: what is being done, e.g. `grade`.
        total: number of items; taken from the iterable's length where it has one.
    """
    if total is None:
        total = len(iterable) if isinstance(iterable, Sized) else None
    with bar(description, total) as advance:
        for item in iterable:
            yield item
            advance(1)


@contextmanager
def bar(description: str, total: int | None = None, *, unit: str = "items", done: int = 0) -> Iterator[Advance]:
    """A bar that the caller moves.

    Args:
        description: what is being done.
        total: units in all; None where that is not known.
        unit: what is counted, in the plural: `tokens`, `responses`.
        done: units that were finished before; they count in neither rate nor time left.
    """
    lines = _Lines(description, total, unit, done)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
    task = shown.add_task(description, total=total, completed=done, note="")

    def advance(n: int = 1, note: str = "", total: int | None = None) -> None:
        lines.count(n, note, total)
        shown.update(task, advance=n, note=lines.note, total=lines.total)
        if shown.disable and lines.is_due():
            lines.print()

    try:
        with shown:
            yield advance
    finally:
        if not sys.stderr.isatty():
            lines.print_last()


class _Lines:
    """Progress as lines, for logs."""

    def __init__(self, description: str, total: int | None, unit: str, before: int):
        self._description, self._unit, self._before = description, unit, before
        self._done = 0
        self._started = time.perf_counter()
        self._due = self._started + min(FIRST_SECONDS, LINE_SECONDS)
        self.total = total
        """The last guess."""
        self.note = ""
        """The last one given."""

    def count(self, n: int, note: str, total: int | None = None) -> None:
        self._done += n
        self.note = note or self.note
        self.total = self.total if total is None else total

    def is_due(self) -> bool:
        return time.perf_counter() >= self._due

    def print(self) -> None:
        now = time.perf_counter()
        self._due = now + LINE_SECONDS
        done = self._before + self._done
        amount = f"{done:,} {self._unit}" if self.total is None else f"{done:,} of {self.total:,} {self._unit}"
        left = ""
        if self.total is not None and self._done:
            seconds = (self.total - done) / self._done * (now - self._started)
            left = f", {timedelta(seconds=round(seconds))} left"
        print(f"{self._description}: {amount}, {self._rate()}{left}{self._noted()}", file=sys.stderr, flush=True)

    def print_last(self) -> None:
        seconds = time.perf_counter() - self._started
        before = f" besides {self._before} from before" if self._before else ""
        print(
            f"{self._description}: {self._done} {self._unit}{before} in {seconds:.1f} s, {self._rate()}{self._noted()}",
            file=sys.stderr,
        )

    def _rate(self) -> str:
        return _rate_text(self._done / max(time.perf_counter() - self._started, 1e-9), "")

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
