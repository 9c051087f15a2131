"""Calls that hang, eat memory or end their process; a module of its own because worker processes import it."""

import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeprm.core.answers import Verdict


def recurse(depth: int) -> int:
    return recurse(depth + 1)


HOSTILE: dict[str, Callable[[], Any]] = {
    "sleep": lambda: time.sleep(100),
    "a loop in C": lambda: re.match("(a+)+$", "a" * 40 + "b"),
    "a power in C": lambda: 9 ** (9 ** (9**9)),
    "memory": lambda: [bytearray(16 << 20) for _ in range(1000)],
    "a crash": lambda: ctypes.string_at(0),
    "an exit": lambda: sys.exit(3),
    "the end of its process": lambda: os._exit(3),
    "an error": lambda: int("x"),
    "a child that stays": lambda: subprocess.run(["sleep", "100"]),
    "what cannot be sent": lambda: lambda: 0,
    "deep recursion": lambda: recurse(0),
}


def make() -> Callable[[Any], Any]:
    return lambda task: HOSTILE[task]() if isinstance(task, str) else -task


def make_nothing() -> Callable[[Any], Any]:
    raise ValueError("no such weights")


def make_none() -> Callable[[Any], Any]:
    os._exit(7)


def fail_to_prepare() -> None:
    raise ImportError("no such module")


def judge(pred: str, gold: str) -> bool | Verdict | None:
    """A user's grader: does what an answer names, else compares texts."""
    if pred in HOSTILE:
        HOSTILE[pred]()
    if pred.startswith("note in "):
        with Path(pred.removeprefix("note in ")).open("a") as file:
            file.write("judged\n")
    if pred == "?":
        return Verdict(None, "a question")
    return None if pred == "-" else pred == gold


def find(response: str) -> str | None:
    """A user's extractor: does what the response names, else gives its last word."""
    if response in HOSTILE:
        HOSTILE[response]()
    return response.split()[-1] if response else None


@dataclass(frozen=True)
class Longest:
    """A user's grader with an option."""

    length: int = 3

    def __call__(self, pred: str, gold: str) -> bool:
        return len(pred) <= self.length


class Plain:
    """A user's grader without options."""

    def __call__(self, pred: str, gold: str) -> bool:
        return pred == gold
