"""What each model read while responses were scored, how long it took, and where: what scoring is charged for."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from freeprm.core.flops import ModelShape, forward_charges
from freeprm.models.batching import Advance
from freeprm.models.loading import device_name
from freeprm.types import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """The work of one model."""

    tokens: int = 0
    seconds: float = 0.0
    """From its start to its last batch, waits for other models left out."""
    place: str = ""
    """`cuda:1`; empty where nothing was read."""
    device: str = ""
    """What that is, as `Cost.devices`."""

    def __add__(self, other: "ModelUsage") -> "ModelUsage":
        return ModelUsage(
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
            place=other.place or self.place,
            device=other.device or self.device,
        )


class Tally:
    """Readings by charge, `policy forward` and the like; each charge is one thread's at a time."""

    def __init__(self) -> None:
        self._readings: dict[str, ModelUsage] = {}

    @property
    def readings(self) -> Mapping[str, ModelUsage]:
        """Of all passes so far."""
        return self._readings

    def timing(self, what: str, model: nn.Module, advance: Advance) -> Advance:
        """What a pass that begins now has to tell of its batches; it is counted, and told to `advance`."""
        place, name = place_of(next(model.parameters()).device)
        self._readings.setdefault(what, ModelUsage())
        last = time.perf_counter()

        def passed(n_tokens: int, n_responses: int) -> None:
            nonlocal last
            before, last = last, time.perf_counter()
            self._readings[what] += ModelUsage(tokens=n_tokens, seconds=last - before, place=place, device=name)
            advance(n_tokens, n_responses)

        return passed


def place_of(device: torch.device) -> tuple[str, str]:
    """A device as `ModelUsage.place` and `ModelUsage.device`."""
    return str(device), device_name(device)


def scoring_cost(tallies: Iterable[Mapping[str, ModelUsage]], shape: ModelShape, *, mean_length: float) -> Cost:
    """What all readings cost.

    Args:
        tallies: readings by charge, of each part of the work.
        shape: of the models.
        mean_length: tokens of a response with its prompt.
    """
    sums: dict[str, ModelUsage] = {}
    places: dict[str, str] = {}
    for tally in tallies:
        for what, reading in tally.items():
            sums[what] = sums.get(what, ModelUsage()) + reading
            places |= {reading.place: reading.device} if reading.place else {}
    tokens = {what: reading.tokens for what, reading in sums.items()}
    seconds = {what: reading.seconds for what, reading in sums.items()}
    return Cost(
        scored_tokens=sum(tokens.values()),
        charges=forward_charges(shape, tokens, mean_length, seconds=seconds),
        devices=tuple(places[place] for place in sorted(places)),
    )
