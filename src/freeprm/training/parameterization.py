"""How a model's answer to a batch becomes rewards: log-ratios to a reference, or values at places."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from freeprm.errors import ConfigError
from freeprm.models.encoding import Encoded, Ints
from freeprm.models.logprobs import check_finite, token_logprobs
from freeprm.models.reward_config import LOG_RATIO
from freeprm.models.values import Valuation, check_values, token_values
from freeprm.objectives.base import Objective, RewardBatch
from freeprm.training.examples import Batch
from freeprm.training.settings import TrainSettings, filled
from freeprm.training.steps import StepReader, TokenSteps


class Parameterization(Protocol):
    """What a reward is, as far as training has to know."""

    @property
    def beta(self) -> float:
        """Scale of log-ratios; 1 for values."""
        ...

    @property
    def with_reference(self) -> bool:
        """Rewards are relative to a reference model."""
        ...

    @property
    def valuation(self) -> Valuation | None:
        """How the model says values; None for log-ratios, which are of every token."""
        ...

    def places(self, item: Encoded, steps: TokenSteps | None) -> Ints | None:
        """Where a response is read, as indices into its tokens; None for every token."""
        ...

    def token_rewards(self, model: nn.Module, batch: Batch) -> Tensor:
        """(T_total,) see `RewardBatch`; differentiable.

        Raises:
            NonFiniteError: the model says NaN or infinity; names the response.
        """
        ...

    def step_scores(self, rewards: RewardBatch) -> Tensor:
        """(S_total,) what scoring gives for each step: above 0 where the step is taken to be right."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRatios:
    """beta * (log pi_phi - log pi_ref), of every token."""

    beta: float
    with_reference: bool = True
    """The batch's reference log-probabilities are a model's, not zeros."""
    valuation: ClassVar[None] = None

    def places(self, item: Encoded, steps: TokenSteps | None) -> None:
        """None: every token."""
        return None

    def token_rewards(self, model: nn.Module, batch: Batch) -> Tensor:
        """(T_total,) beta * (log pi_phi - log pi_ref)."""
        logps = token_logprobs(model, batch.encoded)
        check_finite(logps.detach(), batch.encoded)
        return self.beta * (logps - batch.ref_logps.to(logps.device, logps.dtype))

    def step_scores(self, rewards: RewardBatch) -> Tensor:
        """(S_total,) r_k."""
        return rewards.step_rewards


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """V_k - V_(k-1) of the values at a response's K places, V_0 = 0."""

    valuation: Valuation
    beta: ClassVar[float] = 1.0
    with_reference: ClassVar[bool] = False

    def places(self, item: Encoded, steps: TokenSteps | None) -> Ints:
        """The last token of each step, or of the response."""
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


def reading_of(settings: TrainSettings, objective: Objective) -> Parameterization:
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
    valuation = reading_of(settings, objective).valuation
    if not objective.needs_steps and (valuation is None or valuation.read_at != "steps"):
        return None
    return StepReader(splitter=settings.splitter, labels=settings.step_labels if objective.needs_step_labels else None)
