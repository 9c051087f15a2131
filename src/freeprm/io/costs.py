"""A stage's cost in its manifest: written whole, and read back whoever wrote it and when."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from freeprm.errors import RunFolderError
from freeprm.types import Charge, Cost

CPU = "cpu"
"""The device that is no GPU."""


def timed(cost: Cost, seconds: float) -> Cost:
    """The cost of a run that took so long, GPU-seconds being seconds times the GPUs among its devices."""
    return replace(cost, seconds=seconds, gpu_seconds=seconds * sum(device != CPU for device in cost.devices))


def cost_row(cost: Cost) -> dict[str, Any]:
    """The cost as a manifest has it."""
    return asdict(cost)


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
