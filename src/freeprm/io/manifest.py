"""The parts of a manifest: identity (what decides the result), sessions, versions and cost; and finite metrics."""

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
"""How often a session's time is recorded while rows are appended. A killed session loses at most this much of it, or
the time since its last rows."""
CPU = "cpu"
"""The only device that is no GPU."""
_VERSIONED = ("freeprm", "torch", "transformers", "tokenizers", "peft", "math-verify")

Session = Mapping[str, Any]
"""`started` (UTC), `seconds`, and `repaired`, if any files were."""


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results may depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def plain(value: Any) -> Any:
    """The settings as JSON gives them back, so that they compare equal after a restart."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def difference(key: str, theirs: Any, ours: Any) -> str:
    """The differences between a folder's identity and the requested one; empty if they are equal.

    Inputs are compared by their contents: the same file under another name is the same input.
    """
    if key == "inputs" and isinstance(theirs, dict):
        if list(theirs.values()) == list(ours.values()):
            return ""
        changed = [name for name in ours if theirs.get(name, ours[name]) != ours[name]]
        if changed:
            return f"{changed[0]} has changed since"
        return f"it was made from {', '.join(theirs) or 'nothing'}, not from {', '.join(ours) or 'nothing'}"
    if isinstance(theirs, dict) and isinstance(ours, dict):
        parts = [difference(f"{key}.{name}", theirs.get(name), ours.get(name)) for name in sorted({*theirs, *ours})]
        return ", ".join(part for part in parts if part)
    return "" if theirs == ours else f"its {key} is {theirs!r}, not {ours!r}"


class Stopwatch:
    """Times a run's current session, from its construction."""

    def __init__(self) -> None:
        self._started = self._saved = time.perf_counter()

    def begin(self, earlier: Sequence[Session], *, repaired: Sequence[str]) -> list[Session]:
        """The earlier sessions and the one that begins."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return [*earlier, {"started": started, "seconds": 0.0, **({"repaired": list(repaired)} if repaired else {})}]

    def read(self, sessions: Sequence[Session]) -> list[Session]:
        """All sessions, the last one with its time so far."""
        *earlier, last = sessions
        self._saved = time.perf_counter()
        return [*earlier, {**last, "seconds": round(self._saved - self._started, 3)}]

    def is_due(self) -> bool:
        """Whether the time should be recorded again."""
        return time.perf_counter() - self._saved > SAVE_SECONDS


def total_seconds(sessions: Sequence[Session]) -> float:
    """Of all sessions."""
    return round(sum(float(session["seconds"]) for session in sessions), 3)


def timed(cost: Cost, seconds: float) -> Cost:
    """The cost with its time; GPU-seconds are seconds times the GPUs among its devices."""
    return replace(cost, seconds=seconds, gpu_seconds=seconds * sum(device != CPU for device in cost.devices))


def read_cost(recorded: Mapping[str, Any]) -> Cost:
    """The cost in a manifest; a RunFolderError if it has unknown fields.

    Old manifests have no charges, only their sum. If that is 0 although tokens went through a model, the model's shape
    was not known, so the sum is not known either.
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
    """Raise a NonFiniteError if a metric is NaN or infinite, such as a mean over nothing."""
    for name in ("value", "low", "high"):
        number = getattr(metric, name)
        if number is not None and not isfinite(number):
            named = ", ".join(str(part) for part in (metric.scorer, metric.selector, metric.group) if part is not None)
            raise NonFiniteError(
                f"metric {metric.metric}{f' ({named})' if named else ''}: {name} is {number}, over {metric.count}; "
                "expected a finite number, and no metric where there is nothing to measure"
            )
