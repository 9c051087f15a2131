"""The Protocol of a source of rollouts (`Engine`), its requests and its samples.

An engine is a frozen dataclass whose fields are `model` and its options; it loads nothing before the first request.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

from freeprm.core.flops import ModelShape
from freeprm.settings import SamplingParams as SamplingParams
from freeprm.types import Prompt

StopReason = Literal["end", "stop", "length", "context", "abandoned"]
"""The model ended its turn; a stop string; `max_new_tokens`; the model's context was full; the sample could no longer
be the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The samples wanted of one problem."""

    problem_id: str
    prompt: Prompt
    prefix: str = ""
    """The beginning of a response that the samples continue, up to the end of a step; see `engines._reading`."""
    sample_idxs: tuple[int, ...]
    """All of the run, drawn already or not."""
    done: frozenset[int] = frozenset()
    """Those drawn already, which are not returned again. Batches are made from all samples of a run, so that a resumed
    run computes the same numbers, to the last bit, as one never interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One response."""

    problem_id: str
    sample_idx: int
    text: str
    """What follows the rendered prompt, the prefix included, without the end-of-turn token or stop string."""
    stop_reason: StopReason
    token_ids: tuple[int, ...] | None = None
    """As generated, end-of-turn token included; None if unknown to the engine, like the counts."""
    n_prompt_tokens: int | None = None
    """Of the prompt and the prefix."""
    n_read_tokens: int | None = field(default=None, compare=False)
    """Of these, the tokens that went through the model for this sample; shared ones are counted for one sample only, so
    this is no property of the sample."""
    n_generated_tokens: int | None = None
    """Tokens drawn, end-of-turn token included."""
    token_logprobs: tuple[float, ...] | None = None
    """log-probability of each of `token_ids` under the model itself; None unless requested and known to the engine."""
    logprobs_of: str | None = None
    """The model and prompt of these, see `models.reference_logprobs.noted_of`; None if unknown."""

    @property
    def truncated(self) -> bool:
        """Whether it was cut off before its end."""
        return self.stop_reason in ("length", "context", "abandoned")


class Engine(Protocol):
    """Draws responses to prompts."""

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        """Each requested sample once, as it is finished, in any order.

        A sample depends on its prompt, its prefix, its index and the parameters, seed included; on other requests only
        through rounding.

        Raises:
            ConfigError: a prefix, if the engine cannot continue one.
            ModelError: the model cannot be used, or a prompt leaves no room in its context.
        """
        ...

    def identity(self) -> Mapping[str, Any]:
        """Everything else that decides the responses: hashes of weights and template, ...; loads no weights."""
        ...

    def shape(self) -> ModelShape | None:
        """The shape that decides the cost of a token; None if unknown."""
        ...


@runtime_checkable
class OnDevices(Protocol):
    """An engine that knows its model's devices."""

    def devices(self) -> tuple[str, ...]:
        """As `Cost.devices`; loads no weights."""
        ...


@runtime_checkable
class Counting(Protocol):
    """An engine that reports tokens while samples are drawn."""

    def counted(
        self, requests: Sequence[Request], *, params: SamplingParams, count: Callable[[int], None]
    ) -> Iterator[Sampled]:
        """`Engine.sample`, which calls `count` with the number of tokens drawn since the last call."""
        ...


@runtime_checkable
class Choosing(Protocol):
    """An engine that chooses one of its options by measuring.

    A run measures once and keeps the choice, since another measurement may come out otherwise.
    """

    def choose(self, params: SamplingParams) -> Mapping[str, Any]:
        """The choice with its reasons, as JSON values; `said` is a message for the user. Loads no weights."""
        ...

    def chosen(self, choice: Mapping[str, Any]) -> Self:
        """The engine with this choice."""
        ...


def devices_of(engine: Engine) -> tuple[str, ...]:
    """An engine's devices; empty if unknown."""
    return engine.devices() if isinstance(engine, OnDevices) else ()
