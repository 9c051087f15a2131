"""Progress of long work, on stderr: a live bar on a terminal, one line at the end elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")


class Advance(Protocol):
    """Counts `n` more units done; a note, where given, replaces the one shown."""

    def __call__(self, n: int = 1, note: str = "") -> None: ...


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
def bar(description: str, total: int | None = None, *, unit: str = "items") -> Iterator[Advance]:
    """A bar that the caller moves.

    Args:
        description: what is being done.
        total: units in all; None where that is not known.
        unit: what is counted, in the plural: `tokens`, `responses`.
    """
    done, last_note = 0, ""
    started = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
    task = shown.add_task(description, total=total, note="")

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last_note
        done, last_note = done + n, note or last_note
        shown.update(task, advance=n, note=last_note)

    try:
        with shown:
            yield advance
    finally:
        if not sys.stderr.isatty():
            seconds = time.perf_counter() - started
            note = f", {last_note}" if last_note else ""
            print(
                f"{description}: {done} {unit} in {seconds:.1f} s, {done / max(seconds, 1e-9):.1f}/s{note}",
                file=sys.stderr,
            )


class _Rate(ProgressColumn):
    """Units a second, `?` until there is an estimate."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else f"? {self._unit}/s")
