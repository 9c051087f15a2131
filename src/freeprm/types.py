"""The records that flow from stage to stage. Frozen, plain, and free of torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any, NamedTuple

Message = Mapping[str, str]
"""{"role": ..., "content": ...}, as chat templates take it."""

Prompt = str | tuple[Message, ...]
"""A question as plain text (made one user turn where the tokenizer has a chat template), or a conversation."""


class Span(NamedTuple):
    """A half-open range [start, stop)."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its gold answer."""

    problem_id: str
    prompt: Prompt
    answer: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the source says of it (subject, level, ...), carried along untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One response to a problem, with what is known of it so far."""

    problem_id: str
    sample_idx: int
    """0-based, unique within the problem."""
    prompt: Prompt
    response: str
    answer: str | None = None
    """The gold answer."""
    pred: str | None = None
    """The final answer extracted from the response; None where there is none."""
    correct: bool | None = None
    """The outcome label; None where ungraded or ungradable."""
    truncated: bool = False
    """Cut off before its end: gets no end-of-turn token anywhere."""
    scorer: str | None = None
    """Name of the reward model that gave the scores below."""
    step_scores: tuple[float, ...] | None = None
    """One score a step, K of them."""
    score: float | None = None
    """One score for the response, where the scorer gives only that."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other column of the row, carried along untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt with its rollouts: the unit of training, scoring and selection."""

    problem_id: str
    prompt: Prompt
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseScore:
    """What an implicit process reward model says of one response, at every granularity."""

    steps: tuple[Span, ...]
    """K character spans that tile the response."""
    step_rewards: tuple[float, ...]
    """(K,) r_k, the log-ratio over the step's tokens, times beta."""
    q_values: tuple[float, ...]
    """(K,) running sums of `step_rewards`: q at each step's end."""
    reward: float
    """r(y), the sum of `step_rewards`."""
    tokens: tuple[Span, ...]
    """(T,) character spans of the response's tokens; an end-of-turn token has an empty one."""
    token_rewards: tuple[float, ...]
    """(T,) in beta * nats."""

    @property
    def p_correct(self) -> tuple[float, ...]:
        """(K,) sigmoid(q) at each step's end: the probability of a right answer, under the CE reading (Eq. 5)."""
        return tuple(1 / (1 + exp(-q)) if q >= 0 else exp(q) / (1 + exp(q)) for q in self.q_values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number with what it takes to read it. Fields that do not apply are None."""

    metric: str
    """What was measured, e.g. `accuracy`, `processbench_f1`, `step_auc`."""
    value: float
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    count: int
    """Problems (or responses, or steps) that the value is an average over."""
    scorer: str | None = None
    selector: str | None = None
    """How one response or answer was chosen: `best_of_n/min`, `majority`, `weighted_vote/min`, `oracle`, ..."""
    n: int | None = None
    """Responses a problem to choose from."""
    seed: int | None = None
    group: str | None = None
    """`column=value` in a breakdown, None for the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a stage used, from measured tokens and clocks."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    """Tokens passed forward through a model without gradients, prompts included."""
    trained_tokens: int = 0
    """Tokens passed forward and backward."""
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in Cost.__slots__})


def group_rollouts(rollouts: Sequence[Rollout]) -> list[Group]:
    """Rollouts gathered by problem, in order of first appearance; samples in order of `sample_idx`.

    A sample that several scorers scored is there once, as the first row that has it.
    """
    by_problem: dict[str, dict[int, Rollout]] = {}
    for rollout in rollouts:
        by_problem.setdefault(rollout.problem_id, {}).setdefault(rollout.sample_idx, rollout)
    return [
        Group(
            problem_id=problem_id,
            prompt=next(iter(samples.values())).prompt,
            rollouts=tuple(samples[index] for index in sorted(samples)),
        )
        for problem_id, samples in by_problem.items()
    ]
