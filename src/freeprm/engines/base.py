"""What a source of rollouts must be (`Engine`), what is requested of it and what it gives.

An engine is a frozen dataclass: `model` and its options are its fields, and it loads nothing before
the first request.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

from freeprm.core.flops import ModelShape
from freeprm.settings import SamplingParams as SamplingParams
from freeprm.types import Prompt

StopReason = Literal["end", "stop", "length", "context", "abandoned"]
"""The model ended its turn; a stop string; `max_new_tokens` were drawn; the model's context was full; the sample could
not be the best any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The samples wanted of one problem."""

    problem_id: str
    prompt: Prompt
    prefix: str = ""
    """The beginning of a response that the samples go on from, up to the end of a step; see `engines.reading`."""
    sample_idxs: tuple[int, ...]
    """All that belong to the run, drawn already or not."""
    done: frozenset[int] = frozenset()
    """Those drawn already, which are not given again. They are stated because batches are made up from all
    samples of a run, so that a resumed run computes the same numbers, to the last bit, as one never interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One response."""

    problem_id: str
    sample_idx: int
    text: str
    """What follows the rendered prompt, the prefix included, without the end-of-turn token or stop string."""
    stop_reason: StopReason
    token_ids: tuple[int, ...] | None = None
    """As generated, end-of-turn token included; None where the engine does not say."""
    n_prompt_tokens: int | None = None
    """Of the prompt, and of the prefix where there is one; None where the engine does not say."""
    n_read_tokens: int | None = field(default=None, compare=False)
    """Of these, how many went through the model for this sample; what samples share is counted with one of them, so
    that it is no property of the sample. None where the engine does not say."""
    n_generated_tokens: int | None = None
    """Tokens drawn, end-of-turn token included; None where the engine does not say."""
    token_logprobs: tuple[float, ...] | None = None
    """log-probability of each of `token_ids` under the model itself; None unless requested and known to the engine."""
    logprobs_of: str | None = None
    """Which model that is, behind which prompt, see `models.reference_logprobs.noted_of`; None where the engine cannot
    tell."""

    @property
    def truncated(self) -> bool:
        """Cut off before its end."""
        return self.stop_reason in ("length", "context", "abandoned")


class Engine(Protocol):
    """Draws responses to prompts."""

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        """Each wanted sample once, as it is finished, in any order.

        A sample depends on its prompt, its prefix, its index, and the parameters, seed included; on the other
        requests only through rounding.

        Raises:
            ConfigError: a prefix, of an engine that cannot go on from one.
            ModelError: the model cannot be used, or a prompt leaves no room in its context.
        """
        ...

    def identity(self) -> Mapping[str, Any]:
        """What else decides the responses: the weights' hash, the template's, ...; loads no weights."""
        ...

    def shape(self) -> ModelShape | None:
        """What decides the cost of a token; None where that is not known."""
        ...


@runtime_checkable
class OnDevices(Protocol):
    """An engine that knows what its model works on."""

    def devices(self) -> tuple[str, ...]:
        """As `Cost.devices`; loads no weights."""
        ...


@runtime_checkable
class Counting(Protocol):
    """An engine that tells how many tokens it has drawn before a sample is finished."""

    def counted(
        self, requests: Sequence[Request], *, params: SamplingParams, count: Callable[[int], None]
    ) -> Iterator[Sampled]:
        """As `Engine.sample`; `count` is called with the number of tokens drawn since its last call."""
        ...


@runtime_checkable
class Choosing(Protocol):
    """An engine that settles one of its options by measuring.

    It is done once for a run and kept with it, since another measurement may come out otherwise.
    """

    def choose(self, params: SamplingParams) -> Mapping[str, Any]:
        """The choice with its reasons, as JSON can hold it; `said` is for a person to read. Loads no weights."""
        ...

    def chosen(self, choice: Mapping[str, Any]) -> Self:
        """The engine with what was chosen, in this run or when it was begun."""
        ...


def devices_of(engine: Engine) -> tuple[str, ...]:
    """What an engine draws on; nothing where it does not know."""
    return engine.devices() if isinstance(engine, OnDevices) else ()
