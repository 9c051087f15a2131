"""What a run's manifest keeps: what decides the run (its identity), its sessions, what it cost; and finite metrics."""

import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

from freeprm.errors import NonFiniteError, RunFolderError
from freeprm.types import Charge, Cost, Metric

SAVE_SECONDS = 5.0
"""How often the time of a session is written down while rows are appended. A killed session loses no more of it, or
the time since its last rows where that is longer."""
CPU = "cpu"
"""The device that is no GPU."""
_VERSIONED = ("freeprm", "torch", "transformers", "tokenizers", "peft", "math-verify")

Session = Mapping[str, Any]
"""`started` (UTC), `seconds`, and `repaired` where files had to be."""


@cache
def versions() -> dict[str, str]:
    """Of Python and the packages that results may depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def plain(value: Any) -> Any:
    """The same settings as JSON would give them back, so that they compare equal after a restart."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def difference(key: str, theirs: Any, ours: Any) -> str:
    """The first difference between what a folder holds and what was asked for; empty where there is none.

    Inputs are told by their contents: the same file under another name is the same input.
    """
    if key == "inputs" and isinstance(theirs, dict):
        if list(theirs.values()) == list(ours.values()):
            return ""
        changed = [name for name in ours if theirs.get(name, ours[name]) != ours[name]]
        if changed:
            return f"{changed[0]} has changed since"
        return f"it was made from {', '.join(theirs) or 'nothing'}, not from {', '.join(ours) or 'nothing'}"
    if isinstance(theirs, dict) and isinstance(ours, dict):
        parts = (difference(f"{key}.{name}", theirs.get(name), ours.get(name)) for name in sorted({*theirs, *ours}))
        return next((part for part in parts if part), "")
    return "" if theirs == ours else f"its {key} is {theirs!r}, not {ours!r}"


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


def timed(cost: Cost, seconds: float) -> Cost:
    """The cost of a run that took so long, GPU-seconds being seconds times the GPUs among its devices."""
    return replace(cost, seconds=seconds, gpu_seconds=seconds * sum(device != CPU for device in cost.devices))


def read_cost(recorded: Mapping[str, Any]) -> Cost:
    """The cost that a manifest records.

    One from before charges were recorded has a sum only. Where that is 0 although tokens went through a model, the
    model's shape was not known, and so the sum is not either.

    Raises:
        RunFolderError: it has fields that this version does not know.
    """
    known = {field.name for field in fields(Cost)}
    if strange := sorted(set(recorded) - known):
        raise RunFolderError(
            f"cost: no such field {strange[0]!r}; the run was made by a newer freeprm, update this one"
        )
    charges = tuple(Charge(**charge) for charge in recorded.get("charges", ()))
    cost = Cost(**{**recorded, "devices": tuple(recorded.get("devices", ())), "charges": charges})
    went_through = cost.generated_tokens + cost.scored_tokens + cost.trained_tokens
    unknown = "charges" not in recorded and cost.flops == 0 and went_through
    return replace(cost, flops=None) if unknown else cost


def check_metric(metric: Metric) -> None:
    """Refuse NaN and infinity in a metric: a mean over nothing is no number.

    Raises:
        NonFiniteError: names the metric and the field.
    """
    for name in ("value", "low", "high"):
        number = getattr(metric, name)
        if number is not None and not isfinite(number):
            named = ", ".join(str(part) for part in (metric.scorer, metric.selector, metric.group) if part is not None)
            raise NonFiniteError(
                f"metric {metric.metric}{f' ({named})' if named else ''}: {name} is {number}, over {metric.count}; "
                "expected a finite number, and no metric where there is nothing to measure"
            )
