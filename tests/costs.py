"""Costs for tests: without the times, which no two runs share; and manifests of runs that never took place."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from freeprm.types import Charge, Cost


def timeless(cost: Cost) -> Cost:
    """A cost without its seconds."""
    charges = tuple(replace(charge, seconds=None) for charge in cost.charges)
    return replace(cost, seconds=0.0, gpu_seconds=0.0, charges=charges)


def charge(
    what: str, tokens: int, flops: int | None, attention: int | None = 0, seconds: float | None = None
) -> Charge:
    """A charge of so many FLOPs, and attention besides."""
    return Charge(
        what=what, tokens=tokens, parameter_flops=flops, attention_flops=None if flops is None else attention,
        seconds=seconds,
    )  # fmt: skip


def run(
    folder: Path, stage: str, *charges: Charge, inputs: Sequence[Path | str] = (),
    models: Mapping[str, str] | None = None, settings: Mapping[str, Any] | None = None,
    counts: Mapping[str, Any] | None = None, **cost: Any,
) -> Path:  # fmt: skip
    """Write the manifest of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "stage": stage, "settings": dict(settings or {}), "inputs": {str(item): "hash" for item in inputs},
        "status": "complete", "models": dict(models or {}), "counts": dict(counts or {}),
        "cost": asdict(Cost(charges=charges, **cost)),
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
