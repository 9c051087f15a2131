"""Tokens, time and device of each model while responses are scored: the cost of scoring."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

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
    """From its start to its last batch, without waits for other models."""
    place: str = ""
    """`cuda:1`; empty if nothing was read."""
    device: str = ""
    """Its name, as in `Cost.devices`."""

    def __add__(self, other: "ModelUsage") -> "ModelUsage":
        return ModelUsage(
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
            place=other.place or self.place,
            device=other.device or self.device,
        )


class Usage:
    """Usage of each model, by charge such as `policy forward`; a charge is used by one thread at a time.

    Args:
        advance: called with the tokens of each batch.
    """

    def __init__(self, advance: Callable[[int], None] | None = None):
        self._advance = advance
        self.models: dict[str, ModelUsage] = {}
        """Totals so far."""

    @property
    def tokens(self) -> int:
        """Total of all models."""
        return sum(item.tokens for item in self.models.values())

    def advance(self, n_tokens: int, n_responses: int) -> None:
        """Forward the tokens of a batch to the callback; see `Advance`."""
        if self._advance is not None:
            self._advance(n_tokens)

    def timing(self, what: str, model: nn.Module | None = None, advance: Advance | None = None) -> Advance:
        """A callback for the batches of a pass that begins now, which counts and forwards them.

        Args:
            what: the charge.
            model: for its device; None if unknown.
            advance: called instead of `Usage.advance`.
        """
        device = None if model is None else next(model.parameters()).device
        place, name = ("", "") if device is None else (str(device), device_name(device))
        self.models.setdefault(what, ModelUsage())
        last = time.perf_counter()

        def passed(n_tokens: int, n_responses: int) -> None:
            nonlocal last
            before, last = last, time.perf_counter()
            self.models[what] += ModelUsage(tokens=n_tokens, seconds=last - before, place=place, device=name)
            (advance or self.advance)(n_tokens, n_responses)

        return passed


def scoring_cost(parts: Iterable[Mapping[str, ModelUsage]], shape: ModelShape, *, mean_length: float) -> Cost:
    """The cost of all models.

    Args:
        parts: usage by charge, for each part of the work.
        shape: of the models.
        mean_length: tokens of a response with its prompt.
    """
    sums: dict[str, ModelUsage] = {}
    places: dict[str, str] = {}
    for part in parts:
        for what, usage in part.items():
            sums[what] = sums.get(what, ModelUsage()) + usage
            places |= {usage.place: usage.device} if usage.place else {}
    tokens = {what: usage.tokens for what, usage in sums.items()}
    seconds = {what: usage.seconds for what, usage in sums.items()}
    return Cost(
        scored_tokens=sum(tokens.values()),
        charges=forward_charges(shape, tokens, mean_length, seconds=seconds),
        devices=tuple(places[place] for place in sorted(places)),
    )
