"""What an objective sees (`RewardBatch`) and what it must be (`Objective`).

Beta and the reference belong to the reward, not to the objective, so an objective never sees a token id, a
log-probability or a model. Nor does it see how the reward is read: where a model says values V_k at K places instead of
log-ratios, each place counts as one token, and its reward is V_k - V_(k-1) with V_0 = 0. So a response's reward is the
last value, and the running sums are the values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from freeprm.errors import ConfigError, DataError, PluginError
from freeprm.io.plugins import load


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBatch:
    """The rewards of B responses with T_total tokens in all, and their outcome labels."""

    token_rewards: Tensor
    """(T_total,) float32: beta * (log pi_phi - log pi_ref) of each response token, response after response; of values,
    V_k - V_(k-1) of each place where one is read."""
    rows: Tensor
    """(T_total,) int64: the response that each token belongs to, ascending from 0; every response has a token."""
    labels: Tensor
    """(B,) bool: True where the final answer is right."""
    groups: Tensor
    """(B,) int64: equal for responses to the same prompt."""
    kl: Tensor | None = None
    """() beta * KL(pi_phi || pi_ref), estimated without gradient; given to objectives with `needs_kl`."""
    means: Tensor | None = None
    """(S,) what an `Averaging` objective asks for, over all responses of the optimisation step, without gradient; given
    to objectives with `needs_means`."""
    steps: Tensor | None = None
    """(T_total,) int64: the step that each token belongs to, ascending over the batch from 0; every step has a token.
    Given to objectives with `needs_steps`."""
    step_labels: Tensor | None = None
    """(S_total,) float32 in [0, 1]: 1 right, 0 wrong, between them how likely it is to be right, NaN not known. Given
    to objectives with `needs_step_labels`; every response has one that is known."""

    @property
    def lengths(self) -> Tensor:
        """(B,) int64: tokens of each response."""
        return torch.bincount(self.rows, minlength=len(self.labels))

    @property
    def rewards(self) -> Tensor:
        """(B,) r(y): token rewards summed by response (Proposition 3.1's outcome reward)."""
        return self.token_rewards.new_zeros(len(self.labels)).index_add(0, self.rows, self.token_rewards)

    @property
    def prefix_values(self) -> Tensor:
        """(T_total,) V_t: running sums of the token rewards inside each response."""
        running = self.token_rewards.double().cumsum(0)
        starts = self.lengths.cumsum(0) - self.lengths  # (B,)
        before = torch.cat([running.new_zeros(1), running])[starts]  # (B,) the sum of all earlier responses
        return (running - before[self.rows]).to(self.token_rewards.dtype)

    @property
    def positions(self) -> Tensor:
        """(T_total,) int64: 1-based position of each token in its response."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.rows), device=self.rows.device) - starts[self.rows] + 1

    @property
    def step_rows(self) -> Tensor:
        """(S_total,) int64: the response that each step belongs to."""
        return self.rows[self._step_ends]

    @property
    def step_rewards(self) -> Tensor:
        """(S_total,) r_k: token rewards summed by step."""
        sums = self.token_rewards.new_zeros(len(self._step_ends))
        return sums.index_add(0, self._given_steps, self.token_rewards)

    @property
    def step_values(self) -> Tensor:
        """(S_total,) the value after each step: the running sum of the token rewards up to its last token."""
        return self.prefix_values[self._step_ends]

    @property
    def _step_ends(self) -> Tensor:
        """(S_total,) the last token of each step."""
        return torch.bincount(self._given_steps).cumsum(0) - 1

    @property
    def _given_steps(self) -> Tensor:
        if self.steps is None:
            raise DataError("the batch carries no steps; an objective that looks at steps sets needs_steps = True")
        return self.steps


class Pairs(NamedTuple):
    """Indices into a batch's responses: `chosen[i]` is right, `rejected[i]` wrong, both of one group."""

    chosen: Tensor
    rejected: Tensor


def pairs(labels: Tensor, groups: Tensor) -> Pairs:
    """Every right response with every wrong one of its group (the Cartesian pairing of the released code).

    Args: `labels` (B,) bool and `groups` (B,) int64. Returns two (M,) index tensors, ordered by chosen, then rejected.
    """
    same = groups[:, None] == groups[None, :]  # (B, B)
    chosen, rejected = (same & labels[:, None] & ~labels[None, :]).nonzero(as_tuple=True)
    return Pairs(chosen, rejected)


def step_cross_entropy(logits: Tensor, batch: RewardBatch) -> Tensor:
    """-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)) against the step labels y, mean over a response's labelled steps.

    Args:
        logits: (S_total,) z.
        batch: has step labels, hard or soft; steps without one count for nothing.

    Returns:
        (B,) in nats.

    Raises:
        DataError: the batch carries no step labels.
    """
    if batch.step_labels is None:
        raise DataError("the batch carries no step labels; an objective on them sets needs_step_labels = True")
    known = batch.step_labels.isfinite().nonzero()[:, 0]
    labels = batch.step_labels[known].to(logits.dtype)
    losses = binary_cross_entropy_with_logits(logits[known], labels, reduction="none")
    return mean_by_response(losses, batch.step_rows[known], n_responses=len(batch.labels))


def mean_by_response(values: Tensor, rows: Tensor, *, n_responses: int) -> Tensor:
    """(B,) the mean of each response's values (M,), whose responses are rows (M,) int64; 0 where it has none."""
    counts = torch.bincount(rows, minlength=n_responses).clamp(min=1)
    return values.new_zeros(n_responses).index_add(0, rows, values) / counts


NEEDS = ("needs_pairs", "needs_kl", "needs_means", "needs_steps", "needs_step_labels")
"""What every objective has to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Settings of training that fit, as they are published; whatever the user says ranks above them."""

    source: str
    """Who published them, and where."""
    beta: float | None = None
    """Reward scale of log-ratios."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `transformers.TrainingArguments`."""


class Objective(Protocol):
    """Turns a batch of rewards into losses, one for each item that it trains on; a class may inherit what it needs.

    A batch is whatever goes through the model at once, so an item's loss must not depend on what else is in it. What a
    loss has to know of all items of a step it is given: `RewardBatch.kl`, `RewardBatch.means`.

    A class may also say `defaults: ClassVar[Defaults]`, where other settings fit it than fit implicit process reward
    models in general; see `freeprm.training.settings.filled`.
    """

    needs_pairs: ClassVar[bool] = False
    """Items are pairs inside a group, so that groups with one class give none; otherwise responses."""
    needs_kl: ClassVar[bool] = False
    """`RewardBatch.kl` must be given, which only log-ratios have."""
    needs_steps: ClassVar[bool] = False
    """`RewardBatch.steps` must be given."""
    needs_step_labels: ClassVar[bool] = False
    """`RewardBatch.step_labels` must be given; implies `needs_steps`."""

    @property
    def needs_means(self) -> bool:
        """`RewardBatch.means` must be given; the objective is `Averaging`. It may hang on the objective's options."""
        return False

    def losses(self, batch: RewardBatch) -> Tensor:
        """(M,) float32, one loss an item: a response, or a pair in the order of `pairs`.

        Raises:
            DataError: the batch lacks what the objective needs.
        """
        ...


def objective_named(name: str, options: Mapping[str, Any] | None = None) -> Objective:
    """An objective with its options set.

    Args:
        name: of a file in this folder, or `package.module:Name`.
        options: its fields.

    Raises:
        PluginError: there is none, or it does not say all of `NEEDS`.
        ConfigError: it has no such option.
    """
    kind = load("objectives", name)
    try:
        objective: Objective = kind(**(options or {}))
    except TypeError as error:
        raise ConfigError(f"objective_options of {name}: {error}") from error
    if missing := [need for need in NEEDS if not hasattr(objective, need)]:
        raise PluginError(f"objective {name}: does not say {missing[0]}; expected {', '.join(NEEDS)}")
    if objective.needs_means and not isinstance(objective, Averaging):
        raise PluginError(f"objective {name}: says needs_means; expected a method `totals` besides")
    return objective


class Totals(NamedTuple):
    """What some of a step's responses add to S weighted means."""

    sums: Tensor
    """(S,) of weight times value."""
    weights: Tensor
    """(S,) 0 where none of the responses is one of those that are averaged."""


@runtime_checkable
class Averaging(Protocol):
    """An objective whose losses depend on means over all responses of a step, as BCO's on those of the two classes.

    The trainer takes the means over all micro-batches and processes of an optimisation step, in a pass of the model
    before that of the losses; in an evaluation, over all that is evaluated. One over nothing stays as it was last, and
    is 0 before. A variance is had from the means of r and r^2, a log-mean-exp from that of exp(r).
    """

    def totals(self, batch: RewardBatch) -> Totals:
        """What any part of the step adds; its `means` are not there yet."""
        ...


def with_means(objective: Objective, batch: RewardBatch) -> RewardBatch:
    """The batch with the means over itself, as where it is a whole optimisation step, if the objective needs them."""
    if not objective.needs_means:
        return batch
    assert isinstance(objective, Averaging)
    return replace(batch, means=means_of(objective.totals(batch)))


def means_of(totals: Totals, *, otherwise: Tensor | None = None) -> Tensor:
    """(S,) sums over weights, without gradient; `otherwise` (S,), by default 0, where there is no weight."""
    sums, weights = (part.detach() for part in totals)
    known = weights > 0
    return (sums / weights.where(known, 1.0)).where(known, torch.zeros_like(sums) if otherwise is None else otherwise)
