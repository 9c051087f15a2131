"""Training as a person follows it: a bar and a line for each log, on stderr, so that stdout stays the command's own."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from freeprm.core.flops import ModelShape, charge, forward_charges, forward_flops, training_flops
from freeprm.core.ledger import EVALUATED, KL, MEANS, RECOMPUTED, REFERENCE, TRAINING
from freeprm.io.progress import Advance, bar
from freeprm.models.loading import device_name
from freeprm.models.logprobs import n_read
from freeprm.training.batches import Example
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Cost


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint that was written to its end; the trainer's state is the last file of one."""
    whole = [path.parent for path in out.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


_SHOWN = {
    "loss": "loss {:.4f}", "sign_accuracy": "sign accuracy {:.3f}", "step_accuracy": "step accuracy {:.3f}",
    "reward_right": "right {:+.3f}", "reward_wrong": "wrong {:+.3f}", "margin": "margin {:+.3f}",
    "kl_to_reference": "KL {:.3f}", "grad_norm": "gradient {:.3g}", "learning_rate": "lr {:.2g}",
}  # fmt: skip


class ConsoleCallback(TrainerCallback):
    """Shows progress and logs, and has the last step logged too. Use it in a `with` around the training."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._advance: Advance | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, with the steps of an interrupted run behind it."""
        if state.is_world_process_zero:
            self._advance = self._open.enter_context(bar("train", state.max_steps, unit="steps"))
            self._advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self._advance:
            self._advance(1)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Print one line."""
        line = described(logs or {})
        if line and state.is_world_process_zero:
            print(f"step {state.global_step}/{state.max_steps}  {line}", file=sys.stderr)


def described(logs: Mapping[str, float]) -> str:
    """One line of a training or evaluation log; empty where there is nothing to tell."""
    prefix = "eval_" if "eval_loss" in logs else ""
    shown = [form.format(logs[prefix + key]) for key, form in _SHOWN.items() if prefix + key in logs]
    return ("dev  " if prefix else "") + "  ".join(shown) if shown else ""


def training_cost(
    trainer: GroupTrainer, shape: ModelShape, examples: Sequence[Example], *, held_out: Sequence[Example],
    reference_tokens: int | None,
) -> Cost:  # fmt: skip
    """The cost of a training run that is over.

    The policy's tokens in training are counted batch by batch as it reads them: a beginning that responses share once,
    a response that occurs twice once; so are those of the pass for means over a step. Those of the KL estimate and of
    evaluations are counted group by group.

    Args:
        trainer: has trained.
        shape: of the policy, and of the reference.
        examples, held_out: what it trained on, and what it was evaluated on.
        reference_tokens: that went through the reference, 0 where all of its log-probabilities were there already;
            None where training has none.
    """
    args = trainer.args
    lengths = [len(item.ids) for example in examples for item in example.encoded]
    mean = sum(lengths) / len(lengths)
    trained = int(trainer.state.num_input_tokens_seen)
    whole = training_flops(shape, trained, mean, adapters=_has_adapters(trainer))
    charges = [charge(TRAINING, trained, whole)]
    if args.gradient_checkpointing:
        charges.append(charge(RECOMPUTED, trained, forward_flops(shape, trained, mean)))
    passes = _forward_passes(trainer, examples, held_out)
    if reference_tokens is not None:
        passes[REFERENCE] = reference_tokens
    return Cost(
        trained_tokens=trained,
        scored_tokens=sum(passes.values()),
        sequence_tokens=round(_epochs(trainer) * _sequence_tokens(examples, paired=trainer.objective.needs_pairs)),
        charges=(*charges, *forward_charges(shape, passes, mean)),
        devices=(device_name(args.device),) * (args.world_size * max(1, args.n_gpu)),
    )


def _forward_passes(trainer: GroupTrainer, examples: Sequence[Example], held_out: Sequence[Example]) -> dict[str, int]:
    """Tokens that the policy reads besides, by charge."""
    model, passes = _model(trainer), {}
    n_evaluations = sum("eval_loss" in entry for entry in trainer.state.log_history)
    evaluated = n_evaluations * sum(n_read(model, example.encoded) for example in held_out)
    if trainer.objective.needs_kl:
        trained, of_evaluations = (
            sum(n_read(model, example.mismatched) for example in part) for part in (examples, held_out)
        )
        passes[KL] = round(_epochs(trainer) * trained + n_evaluations * of_evaluations)
    if trainer.objective.needs_means:
        passes[MEANS] = int(trainer.state.num_input_tokens_seen) + evaluated
    if n_evaluations:
        passes[EVALUATED] = evaluated
    return passes


def _has_adapters(trainer: GroupTrainer) -> bool:
    return any(not weight.requires_grad for weight in _model(trainer).parameters())


def _model(trainer: GroupTrainer) -> nn.Module:
    assert trainer.model is not None
    return trainer.model


def _epochs(trainer: GroupTrainer) -> float:
    return trainer.state.epoch or 0.0


def _sequence_tokens(examples: Sequence[Example], *, paired: bool) -> int:
    """Of one epoch: each response with its prompt, once, or once for every pair that it is in."""
    return sum(
        len(item.ids) * (example.labels.count(not label) if paired else 1)
        for example in examples
        for item, label in zip(example.encoded, example.labels, strict=True)
    )
