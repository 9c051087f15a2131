"""Whether training can move its loss, looked at before it begins: beta, the objective's margin and the learning rate.

A run that cannot is not an error, and nothing about it looks wrong: its loss stays where it starts.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import TrainingArguments

from freeprm.objectives.base import Objective, RewardBatch, with_means
from freeprm.training.batches import Example, collate_groups
from freeprm.training.settings import TrainSettings, filled, n_steps

LEAST_SHARE = 0.2
"""Share of what an objective's loss can fall at all that should be in reach: of cross-entropy, r = 0.3."""
SLOWEST = 5.0
"""How many times below the learning rate that is published for it a run is slow, and does not yet stand still."""
_SAMPLE = 64
"""Examples that are looked at."""
_SHARES = tuple(2.0**-k for k in range(12))
_RAISES = tuple(2.0**k for k in range(1, 21))


class Reach(NamedTuple):
    """How far the rewards of a log-ratio can take the loss."""

    reward: float
    """What an average right response can earn at most: -beta * log pi_ref(y), of a policy certain of it."""
    start: float
    """The loss of a policy that is the reference."""
    least: float
    """The lowest loss on the straight way to a policy certain of all that is right, what is wrong lowered alike."""
    suffices: bool
    """`LEAST_SHARE` of what the loss could fall without any bound is on that way."""
    enough: float | None
    """A beta with which it would be; None where there is none."""


def reach(examples: Sequence[Example], objective: Objective, *, beta: float) -> Reach | None:
    """What the reference leaves to be gained, as the objective sees it.

    The reward of a token that the policy becomes certain of is -beta * log pi_ref(y_t); no more can be gained of it. A
    right response, or step where those are labelled, is given all of that, and a wrong one as much below zero, which a
    policy can always do.

    Returns:
        None where nothing is right, or a loss has no item.
    """
    batch = collate_groups(examples[:_SAMPLE])
    right = batch.labels[batch.rows].float()  # (T_total,)
    if batch.steps is not None and batch.step_labels is not None and objective.needs_step_labels:
        right = batch.step_labels[batch.steps].nan_to_num(0.5)
    if not right.any():
        return None
    whole = RewardBatch(
        token_rewards=-batch.ref_logps * (2 * right - 1),  # (T_total,) all that is in reach at a beta of 1
        rows=batch.rows, labels=batch.labels, groups=batch.groups, kl=torch.zeros(()), steps=batch.steps,
        step_labels=batch.step_labels,
    )  # fmt: skip

    def loss(scale: float) -> float:
        scaled = with_means(objective, replace(whole, token_rewards=whole.token_rewards * scale))
        return float(objective.losses(scaled).mean())

    start = loss(0.0)
    if math.isnan(start):  # the mean of no item
        return None

    def least(beta: float) -> float:
        return min(start, *(loss(beta * share) for share in _SHARES))

    best = min(least(beta), *(loss(beta * raised) for raised in _RAISES))

    def suffices(beta: float) -> bool:
        return start - least(beta) >= LEAST_SHARE * (start - best) > 0

    enough = next((beta * raised for raised in (1.0, *_RAISES) if suffices(beta * raised)), None)
    earned = -beta * float(batch.ref_logps[batch.labels[batch.rows]].sum()) / max(int(batch.labels.sum()), 1)
    return Reach(earned, start, least(beta), suffices=enough == beta, enough=enough)


def out_of_reach(examples: Sequence[Example], objective: Objective, *, beta: float) -> str | None:
    """What to warn of where beta and margin leave the loss where it is; None where they do not."""
    found = reach(examples, objective, beta=beta)
    if found is None or found.suffices:
        return None
    advice = (
        "No beta changes that"
        if found.enough is None
        else f"Try a beta of {found.enough:.2g} or more, or a lower margin where the objective has one"
    )
    return (
        f"beta {beta:g} lets an average right response earn {found.reward:.2g} at most, because the reference is "
        f"confident already, and the loss fall from {found.start:.4g} to {found.least:.4g}: too little to learn from. "
        f"{advice}"
    )


def too_slow(settings: TrainSettings) -> str | None:
    """What to warn of where the learning rate of filled settings is far below the one that is published; else None."""
    rate = settings.trainer["learning_rate"]
    trainer = {name: value for name, value in settings.trainer.items() if name != "learning_rate"}
    fitting = filled(replace(settings, trainer=trainer))
    usual = fitting.settings.trainer["learning_rate"]
    if rate == 0 or rate * SLOWEST > usual:  # 0 is meant
        return None
    what = "adapters (lora)" if settings.lora else f"parameterisation {settings.parameterisation}"
    return (
        f"trainer.learning_rate {rate:g} is {usual / rate:.0f} times below what is published for {what}, {usual:g} "
        f"({fitting.sources['trainer.learning_rate']}): the loss will hardly move. Leave it out to take that"
    )


def never_warm(arguments: TrainingArguments, *, n_examples: int) -> str | None:
    """What to warn of where the only step is the first of a warm-up, whose learning rate is 0; None where it is not."""
    if n_steps(arguments, n_examples=n_examples) > 1 or arguments.warmup_steps < 1:  # `fit` takes no share of one step
        return None
    return (
        "training is one step of the optimizer, the first of the warm-up, whose learning rate is 0: no weight will "
        "move. Give trainer.warmup_steps=0, or more steps by a lower trainer.gradient_accumulation_steps or more epochs"
    )
