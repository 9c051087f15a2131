"""A few steps of training under a clock, with this package's trainer, TRL's and a plain loop, on the same batches.

All compute the reference's log-probabilities before training, TRL by its option `precompute_ref_log_probs`.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import clip_grad_norm_
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from benchmarks import timing
from benchmarks.peers import padded_logprobs, plain_logprobs
from benchmarks.timing import timed
from benchmarks.workloads import rollouts_of
from freeprm.errors import MissingExtraError
from freeprm.io.plugins import load
from freeprm.models.encoding import Encoded, encode
from freeprm.models.logprobs import score_tokens
from freeprm.models.prompts import render_prompt
from freeprm.objectives.base import Objective
from freeprm.training.batches import Example, LogRatios
from freeprm.training.examples import mismatches
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Group, Rollout

BETA = 0.1
NO_TRL = "TRL is not installed: pip install 'freeprm[bench]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is trained: the same for ours and a peer's."""

    objective: str
    """`dpo`, `kto`, ..."""
    groups: tuple[Group, ...]
    """In the order of training; each batch takes the next `groups_a_batch`."""
    groups_a_batch: int
    learning_rate: float = 1e-6
    bf16: bool = False
    """Compute in bfloat16, by autocast; the reference too."""

    @property
    def n_steps(self) -> int:
        """Optimisation steps of one pass over the groups."""
        return len(self.groups) // self.groups_a_batch

    @property
    def measured(self) -> tuple[Group, ...]:
        """The groups of all steps but the first, which a clock leaves out."""
        return self.groups[self.groups_a_batch : self.n_steps * self.groups_a_batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What a run took, and the numbers that tell whether two runs computed the same."""

    reference_seconds: float
    """For the reference's log-probabilities of all responses."""
    step_seconds: tuple[float, ...]
    """From the end of one optimisation step to the end of the next; so the first step is not among them."""
    ref_logps: tuple[float, ...]
    """Summed over each response, in the order of the groups."""
    losses: tuple[float, ...]
    """Of every step."""
    grad_norms: tuple[float, ...]
    """Before clipping, of every step."""

    def seconds(self, *, n_steps: int) -> float:
        """Of the steps measured, with their share of the reference's pass."""
        return sum(self.step_seconds) + self.reference_seconds * len(self.step_seconds) / n_steps


class StepClock(TrainerCallback):
    """Notes when each optimisation step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the time, when a GPU has done its work too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(timing.clock())


def run_timed(trainer: Trainer, *, reference_seconds: float, ref_logps: Sequence[float]) -> TrainingRun:
    """Train under a clock."""
    clock = StepClock()
    for printing in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(printing)
    trainer.add_callback(clock)
    trainer.train()
    steps = [logged for logged in trainer.state.log_history if "loss" in logged and "grad_norm" in logged]
    return TrainingRun(
        reference_seconds=reference_seconds,
        step_seconds=tuple(after - before for before, after in pairwise(clock.ends)),
        ref_logps=tuple(ref_logps),
        losses=tuple(float(step["loss"]) for step in steps),
        grad_norms=tuple(float(step["grad_norm"]) for step in steps),
    )


def shared_arguments(plan: Plan, model: PreTrainedModel) -> dict[str, Any]:
    """Fields of `TrainingArguments` that both sides are given; the batch size is each side's own to say."""
    return {
        "learning_rate": plan.learning_rate, "lr_scheduler_type": "constant", "max_steps": plan.n_steps,
        "train_sampling_strategy": "sequential", "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "dataloader_pin_memory": False, "use_cpu": model.device.type == "cpu",
        "bf16": plan.bf16, "seed": 0,
    }  # fmt: skip


def run_ours(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: Plan, *, out: Path) -> TrainingRun:
    """Train with this package's trainer; the model is changed.

    Args:
        model: the policy, and the reference before its first step.
        tokenizer: of the model.
        plan: what is trained.
        out: a folder for what the trainer writes.
    """
    objective: Objective = load("objectives", plan.objective)()
    rollouts = rollouts_of(plan.groups)
    others = mismatches(plan.groups, seed=0) if objective.needs_kl else []
    encoded = encode(tokenizer, [*rollouts, *others])
    logps: list[Tensor] = []
    with _autocast(model, plan):
        reference_seconds = timed(lambda: logps.extend(score_tokens(model, encoded)))
    trainer = GroupTrainer(
        model,
        TrainingArguments(
            output_dir=str(out), remove_unused_columns=False, per_device_train_batch_size=plan.groups_a_batch,
            **shared_arguments(plan, model),
        ),
        objective=objective, reward=LogRatios(beta=BETA),
        train_dataset=_examples(plan.groups, rollouts, encoded, logps),
    )  # fmt: skip
    sums = [float(part.double().sum()) for part in logps[: len(rollouts)]]
    return run_timed(trainer, reference_seconds=reference_seconds, ref_logps=sums)


def _examples(
    groups: Sequence[Group], rollouts: Sequence[Rollout], encoded: Sequence[Encoded], logps: Sequence[Tensor]
) -> list[Example]:
    """Args: `encoded` and `logps` hold the rollouts', then, where there are any, one mismatched response for each."""
    examples = []
    start = 0
    for group in groups:
        rows = slice(start, start + len(group.rollouts))
        others = slice(len(rollouts) + rows.start, len(rollouts) + rows.stop)
        start = rows.stop
        examples.append(
            Example(
                encoded=tuple(encoded[rows]), labels=tuple(rollout.correct is True for rollout in group.rollouts),
                ref_logps=tuple(logps[rows]), mismatched=tuple(encoded[others]),
                mismatched_ref_logps=tuple(logps[others]),
            )
        )  # fmt: skip
    return examples


def _autocast(model: PreTrainedModel, plan: Plan) -> torch.autocast:
    return torch.autocast(model.device.type, torch.bfloat16, enabled=plan.bf16)


def run_plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: Plan, *, out: Path) -> TrainingRun:
    """Train by the loop that one writes with torch and transformers; the model is changed.

    Args:
        model: the policy, and the reference before its first step.
        tokenizer: of the model.
        plan: what is trained; its objective is `ce`.
        out: unused.
    """
    assert plan.objective == "ce"
    rollouts = rollouts_of(plan.groups)
    encoded = encode(tokenizer, rollouts)
    labels = torch.tensor([float(rollout.correct is True) for rollout in rollouts])
    logps: list[Tensor] = []
    with _autocast(model, plan):
        reference_seconds = timed(lambda: logps.extend(plain_logprobs(model, encoded)))
    ref_logps = torch.stack([part.sum() for part in logps])  # (B,)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=0.0, fused=True)
    ends, losses, norms = [], [], []
    stop = 0
    model.train()
    for step in range(plan.n_steps):
        batch = plan.groups[step * plan.groups_a_batch : (step + 1) * plan.groups_a_batch]
        rows = slice(stop, stop := stop + len(rollouts_of(batch)))
        with _autocast(model, plan):
            policy_logps = torch.stack([part.sum() for part in padded_logprobs(model, encoded[rows])])
        loss = binary_cross_entropy_with_logits(BETA * (policy_logps - ref_logps[rows]), labels[rows])
        loss.backward()
        norms.append(float(clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        ends.append(timing.clock())
    return TrainingRun(
        reference_seconds=reference_seconds, step_seconds=tuple(after - before for before, after in pairwise(ends)),
        ref_logps=tuple(ref_logps.tolist()), losses=tuple(losses), grad_norms=tuple(norms),
    )  # fmt: skip


def trl_version() -> str | None:
    """The installed version, None where there is none."""
    return version("trl") if find_spec("trl") else None


def import_trainers() -> dict[str, tuple[type, Callable[..., Any]]]:
    """TRL's trainer and its configuration, for each objective.

    Raises:
        MissingExtraError: TRL is not installed.
    """
    if trl_version() is None:
        raise MissingExtraError(NO_TRL)
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    return {"dpo": (DPOTrainer, DPOConfig), "kto": (KTOTrainer, KTOConfig)}


def run_trl(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: Plan, *, out: Path, checkpointing: bool
) -> TrainingRun:
    """Train with TRL's trainer; the model is changed.

    Args:
        model: the policy, and the reference before its first step.
        tokenizer: of the model.
        plan: what is trained; for `dpo` each group is one right and one wrong response.
        out: a folder for what the trainer writes.
        checkpointing: recompute activations in the backward pass, which is what TRL does unless told otherwise.

    Raises:
        MissingExtraError: TRL is not installed.
    """
    trainers = import_trainers()
    from datasets.utils.logging import disable_progress_bar

    from datasets import Dataset

    disable_progress_bar()
    base, config = trainers[plan.objective]
    rows_of, a_batch = {
        "dpo": (_pairs, plan.groups_a_batch),
        "kto": (_labelled, plan.groups_a_batch * len(plan.groups[0].rollouts)),
    }[plan.objective]
    spent: list[float] = []

    class Timed(base):  # type: ignore[misc, valid-type]  # TRL has no types
        """The trainer, its reference's pass under a clock."""

        def compute_ref_log_probs(self, *args: Any, **kwargs: Any) -> Any:
            """As the parent."""
            result: list[Any] = []
            spent.append(timed(lambda: result.append(super(Timed, self).compute_ref_log_probs(*args, **kwargs))))
            return result[0]

    with warnings.catch_warnings(), redirect_stderr(StringIO()):  # a bar, and names that transformers has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        trainer = Timed(
            model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(rows_of(tokenizer, plan.groups)),
            args=config(
                output_dir=str(out), per_device_train_batch_size=a_batch, precompute_ref_log_probs=True, beta=BETA,
                max_length=None, gradient_checkpointing=checkpointing, **shared_arguments(plan, model),
            ),
        )  # fmt: skip
    columns = trainer.train_dataset.with_format(None)
    if plan.objective == "dpo":
        both = zip(columns["ref_chosen_logps"], columns["ref_rejected_logps"], strict=True)
        sums = [float(value) for pair in both for value in pair]
    else:
        sums = [float(value) for value in columns["ref_logps"]]
    return run_timed(trainer, reference_seconds=sum(spent), ref_logps=sums)


def _pairs(tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group]) -> list[dict[str, str]]:
    rows = []
    for group in groups:
        right, wrong = sorted(group.rollouts, key=lambda rollout: not rollout.correct)
        prompt = render_prompt(tokenizer, group.prompt)
        rows.append({"prompt": prompt, "chosen": right.response, "rejected": wrong.response})
    return rows


def _labelled(tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": render_prompt(tokenizer, group.prompt),
            "completion": rollout.response,
            "label": rollout.correct is True,
        }
        for group in groups
        for rollout in group.rollouts
    ]
