"""The records that flow from stage to stage. Frozen, plain, and free of torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any, NamedTuple

Message = Mapping[str, str]
"""{"role": ..., "content": ...}, as chat templates take it."""

Prompt = str | tuple[Message, ...]
"""A question as plain text (made one user turn where the tokenizer has a chat template), or a conversation; or one
message of the role `rendered`, whose content is what the model reads, template and special tokens included."""
RENDERED = "rendered"


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
    """Further columns (subject, level, ...), carried along untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One response to a problem, with everything known so far."""

    problem_id: str
    sample_idx: int
    """0-based, unique within the problem."""
    prompt: Prompt
    response: str
    answer: str | None = None
    """The gold answer."""
    pred: str | None = None
    """The final answer extracted from the response, or None."""
    correct: bool | None = None
    """The outcome label; None if ungraded or ungradable."""
    truncated: bool = False
    """Cut off before its end: has no end-of-turn token anywhere."""
    scorer: str | None = None
    """Name of the reward model of the scores below."""
    step_scores: tuple[float, ...] | None = None
    """(K,) one for each step."""
    score: float | None = None
    """One score for the response, if the scorer has only that."""
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
    """An implicit process reward model's rewards of one response, at every granularity."""

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


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of several responses to a prompt."""

    index: int
    """In the order of the call."""
    response: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number with everything needed to read it. Fields that do not apply are None."""

    metric: str
    """Its name, e.g. `accuracy`, `processbench_f1`, `step_auc`."""
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
    weighting: str | None = None
    """How scores became the weights of a vote, a name in `core.voting.WEIGHTINGS`."""
    seed: int | None = None
    group: str | None = None
    """`column=value` in a breakdown, None for the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One part of a stage's cost: tokens that went through a model, in one of its roles."""

    what: str
    """`prefill`, `decode`, `policy forward`, `reference forward`, `training`, ...; see `core.ledger.GROUPS`."""
    tokens: int
    """0 if the result was available without a pass."""
    parameter_flops: int | None
    """2 P a token and pass, see `core.flops`; None if the model's shape is unknown."""
    attention_flops: int | None
    """The part that grows with the context; None as above."""
    seconds: float | None = None
    """Time of the model, if measured. Two models may work at the same time."""

    @property
    def flops(self) -> int | None:
        """Both together."""
        if self.parameter_flops is None or self.attention_flops is None:
            return None
        return self.parameter_flops + self.attention_flops

    def __add__(self, other: "Charge") -> "Charge":
        return Charge(
            what=self.what,
            tokens=self.tokens + other.tokens,
            parameter_flops=_known_sum(self.parameter_flops, other.parameter_flops),
            attention_flops=_known_sum(self.attention_flops, other.attention_flops),
            seconds=None if self.seconds is None or other.seconds is None else self.seconds + other.seconds,
        )


NOT_ITEMISED = "not itemised"
"""A charge for FLOPs with known sum only, which counts as the parameters'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a stage, from measured tokens and times."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    """Tokens passed forward through a model without gradients, prompts included."""
    trained_tokens: int = 0
    """Tokens passed forward and backward."""
    sequence_tokens: int = 0
    """Tokens of the sequences trained on, each in full and as often as the objective takes it: a pair is two."""
    flops: float | None = 0.0
    """The sum of the charges, if any; None if unknown."""
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    """Seconds times the GPUs in use; 0 on a CPU."""
    devices: tuple[str, ...] = ()
    """Names of the models' devices: `cpu`, `NVIDIA H200`."""
    charges: tuple[Charge, ...] = ()
    """The parts of the FLOPs, each kind once."""

    def __post_init__(self) -> None:
        if self.charges:
            object.__setattr__(self, "flops", _sum_of(self.charges))

    def __add__(self, other: "Cost") -> "Cost":
        """The sum: charges of a kind are added, devices are the maximum in use at a time."""
        flops = None if self.flops is None or other.flops is None else self.flops + other.flops
        itemised = [*self.itemised(), *other.itemised()] if self.charges or other.charges else []
        by_kind: dict[str, Charge] = {}
        for charge in itemised:
            by_kind[charge.what] = by_kind[charge.what] + charge if charge.what in by_kind else charge
        return Cost(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
            scored_tokens=self.scored_tokens + other.scored_tokens,
            trained_tokens=self.trained_tokens + other.trained_tokens,
            sequence_tokens=self.sequence_tokens + other.sequence_tokens,
            flops=flops,
            seconds=self.seconds + other.seconds,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            devices=tuple(sorted((Counter(self.devices) | Counter(other.devices)).elements())),
            charges=tuple(by_kind.values()),
        )

    def itemised(self) -> tuple[Charge, ...]:
        """The charges, or one for the whole sum if only that is known."""
        if self.charges or self.flops == 0:
            return self.charges
        tokens = self.prompt_tokens + self.generated_tokens + self.scored_tokens + self.trained_tokens
        whole = None if self.flops is None else round(self.flops)
        attention = None if self.flops is None else 0
        return (Charge(what=NOT_ITEMISED, tokens=tokens, parameter_flops=whole, attention_flops=attention),)


def _known_sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _sum_of(charges: Sequence[Charge]) -> float | None:
    known = [charge.flops for charge in charges if charge.flops is not None]
    return float(sum(known)) if len(known) == len(charges) else None


def group_rollouts(rollouts: Sequence[Rollout]) -> list[Group]:
    """Rollouts grouped by problem, in order of first appearance; samples in order of `sample_idx`.

    A sample with several scorers occurs once, as its first row.
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
