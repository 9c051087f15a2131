"""Examples side by side (`collate_groups`), and how a model's answer to them becomes rewards (`reward_batch`).

A reward is a log-ratio to a reference, of every token, or a value that the model says at some of them. Nothing here
knows of a trainer: these are the pieces of a training loop of one's own; see docs/preferences.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from freeprm.errors import ConfigError
from freeprm.models.encoding import Encoded, Ints
from freeprm.models.logprobs import check_finite, token_logprobs
from freeprm.models.reward_config import LOG_RATIO
from freeprm.models.values import Valuation, check_values, token_values
from freeprm.objectives.base import Objective, RewardBatch
from freeprm.training.settings import TrainSettings, filled
from freeprm.training.steps import StepReader, TokenSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A group as it is trained on: G responses to one prompt."""

    encoded: tuple[Encoded, ...]
    labels: tuple[bool, ...]
    """(G,) True where the final answer is right."""
    ref_logps: tuple[Tensor, ...] = ()
    """G tensors (T,); zeros where log-ratios go without reference; none where values are read."""
    places: tuple[Ints, ...] = ()
    """G arrays: the tokens of a response after which its values are read; none where log-ratios are."""
    steps: tuple[TokenSteps, ...] = ()
    """G, where the objective looks at steps."""
    mismatched: tuple[Encoded, ...] = ()
    """This prompt with responses to other ones, for the KL estimate of KTO."""
    mismatched_ref_logps: tuple[Tensor, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Pairs of a right and a wrong response."""
        return sum(self.labels) * (len(self.labels) - sum(self.labels))

    @property
    def longest(self) -> int:
        """Tokens of the longest response with its prompt."""
        return max(len(item.ids) for item in self.encoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples side by side, B responses in all."""

    encoded: list[Encoded]
    ref_logps: Tensor
    """(T_total,); nothing where values are read."""
    places: list[Ints]
    """B, as in `Example`; nothing where log-ratios are."""
    rows: Tensor
    """(T_total,) the response of each token, or of each place that is read."""
    labels: Tensor
    """(B,) bool"""
    groups: Tensor
    """(B,)"""
    steps: Tensor | None
    """(T_total,) see `RewardBatch`; nothing where the objective does not look at steps."""
    step_labels: Tensor | None
    """(S_total,) see `RewardBatch`."""
    mismatched: list[Encoded]
    """M, where the objective needs a KL."""
    mismatched_ref_logps: Tensor
    """(M_total,) of their tokens."""
    kl: Tensor | None = None
    """() beta * KL(pi_phi || pi_ref) of the whole optimisation step, where the objective needs it."""
    means: Tensor | None = None
    """(S,) of the whole optimisation step, where the objective needs them."""
    idle: bool = False
    """It is read because other processes read a batch meanwhile, and counts for nothing."""


def collate_groups(examples: Sequence[Example]) -> Batch:
    """One batch of examples, for `DataLoader(examples, collate_fn=collate_groups)`; nothing is padded here."""
    encoded = [item for example in examples for item in example.encoded]
    places = [own for example in examples for own in example.places]
    steps = [own for example in examples for own in example.steps]
    lengths = torch.tensor([len(own) for own in places] or [item.n_response for item in encoded])
    sizes = torch.tensor([len(example.encoded) for example in examples])
    read = places or [np.arange(item.n_response, dtype=np.int32) for item in encoded]
    return Batch(
        encoded=encoded,
        ref_logps=_joined([logps for example in examples for logps in example.ref_logps]),
        places=places,
        rows=torch.repeat_interleave(torch.arange(len(encoded)), lengths),
        labels=torch.tensor([label for example in examples for label in example.labels]),
        groups=torch.repeat_interleave(torch.arange(len(examples)), sizes),
        steps=_numbered(steps, read) if steps else None,
        step_labels=torch.from_numpy(np.concatenate([own.labels for own in steps])) if steps else None,
        mismatched=[item for example in examples for item in example.mismatched],
        mismatched_ref_logps=_joined([logps for example in examples for logps in example.mismatched_ref_logps]),
    )


def _numbered(steps: Sequence[TokenSteps], read: Sequence[Ints]) -> Tensor:
    """(T_total,) the step of each token that is read, steps being counted through all responses."""
    parts, before = [], 0
    for own, tokens in zip(steps, read, strict=True):
        parts.append(before + np.searchsorted(own.ends, tokens))  # the first step that ends at the token or after it
        before += len(own.ends)
    return torch.from_numpy(np.concatenate(parts))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRatios:
    """beta * (log pi_phi - log pi_ref), of every token."""

    beta: float
    with_reference: bool = True
    """The batch's reference log-probabilities are a model's, not zeros."""
    valuation: ClassVar[None] = None

    def places(self, item: Encoded, steps: TokenSteps | None) -> None:
        """None: a response is read at every token."""
        return None

    def token_rewards(self, model: nn.Module, batch: Batch) -> Tensor:
        """(T_total,) beta * (log pi_phi - log pi_ref); differentiable.

        Raises:
            NonFiniteError: the model says NaN or infinity; names the response.
        """
        logps = token_logprobs(model, batch.encoded)
        check_finite(logps.detach(), batch.encoded)
        return self.beta * (logps - batch.ref_logps.to(logps.device, logps.dtype))

    def step_scores(self, rewards: RewardBatch) -> Tensor:
        """(S_total,) r_k, which scoring gives for each step: above 0 where the step is taken to be right."""
        return rewards.step_rewards


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """V_k - V_(k-1) of the values at a response's K places, V_0 = 0; `places`, ... as those of `LogRatios`."""

    valuation: Valuation
    """How the model says values."""
    beta: ClassVar[float] = 1.0
    with_reference: ClassVar[bool] = False

    def places(self, item: Encoded, steps: TokenSteps | None) -> Ints:
        """The last token of each step, or of the response, as indices into its tokens."""
        if self.valuation.read_at == "steps":
            assert steps is not None
            return steps.ends
        return np.array([item.n_response - 1], dtype=np.int32)

    def token_rewards(self, model: nn.Module, batch: Batch) -> Tensor:
        """(T_total,) differences of the values."""
        values = token_values(model, batch.encoded, batch.places)
        check_values(values.detach(), batch.encoded, batch.places)
        first = torch.ones_like(batch.rows, dtype=torch.bool)
        first[1:] = batch.rows[1:] != batch.rows[:-1]
        before = torch.cat([values.new_zeros(1), values[:-1]])
        return values - before.masked_fill(first.to(values.device), 0.0)

    def step_scores(self, rewards: RewardBatch) -> Tensor:
        """(S_total,) V_k."""
        return rewards.step_values


Reward = LogRatios | Values
"""What a reward is, as far as training has to know."""


def reward_of(settings: TrainSettings, objective: Objective) -> Reward:
    """What the settings make of the reward, for an objective.

    Raises:
        ConfigError: the objective needs what this reward does not have.
    """
    if settings.parameterisation == LOG_RATIO:
        beta = filled(settings).settings.beta
        assert beta is not None
        return LogRatios(beta=beta, with_reference=settings.with_reference)
    how = f"parameterisation {settings.parameterisation!r}"
    if settings.reference is not None or not settings.with_reference:
        raise ConfigError(f"reference: {how} has none, so there is nothing to name or to leave out; do not give it")
    if objective.needs_kl:
        raise ConfigError(
            f"{settings.objective}: needs the divergence of a policy from its reference, which {how} does not have; "
            "choose another objective, or parameterisation=log_ratio"
        )
    read_at = settings.read_at or ("steps" if objective.needs_steps else "response")
    if objective.needs_steps and read_at != "steps":
        raise ConfigError(f"read_at: is {read_at!r}, but {settings.objective} looks at steps; expected 'steps'")
    judgement = settings.judgement if settings.parameterisation == "tokens" else None
    return Values(valuation=Valuation(parameterisation=settings.parameterisation, read_at=read_at, judgement=judgement))


def step_reader(settings: TrainSettings, objective: Objective) -> StepReader | None:
    """How the steps of rows are read; None where training need not know them."""
    valuation = reward_of(settings, objective).valuation
    if not objective.needs_steps and (valuation is None or valuation.read_at != "steps"):
        return None
    labels = settings.step_labels if objective.needs_step_labels else None
    return StepReader(splitter=settings.splitter, labels=labels, reasoning=settings.reasoning)


def reward_batch(model: nn.Module, batch: Batch, reward: Reward) -> RewardBatch:
    """The rewards of a batch under a model, as an objective takes them: `objective.losses(reward_batch(...)).mean()`.

    Args:
        model: the policy, in training; its forward pass is differentiated through.
        batch: of `collate_groups`; it may be on another device than the model.
        reward: how the model's answer becomes rewards, of `reward_of`.

    Raises:
        NonFiniteError: the model says NaN or infinity; names the response.
    """
    token_rewards = reward.token_rewards(model, batch)
    device = token_rewards.device
    return RewardBatch(
        token_rewards=token_rewards, rows=batch.rows.to(device), labels=batch.labels.to(device),
        groups=batch.groups.to(device), kl=batch.kl, means=batch.means,
        steps=None if batch.steps is None else batch.steps.to(device),
        step_labels=None if batch.step_labels is None else batch.step_labels.to(device),
    )  # fmt: skip
