"""One run of the trainer: its data read, the policy fitted, what that took counted, and progress shown on stderr."""

import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from freeprm.core.curation import Operation
from freeprm.core.flops import ModelShape, charge, forward_charges, forward_flops, training_flops
from freeprm.core.ledger import EVALUATED, KL, MEANS, RECOMPUTED, REFERENCE, TRAINING
from freeprm.errors import ConfigError
from freeprm.io.progress import Advance, bar, duration, tell
from freeprm.io.rows import OnBad
from freeprm.models.allocator import has_slow_malloc
from freeprm.models.loading import device_name
from freeprm.models.logprobs import n_read
from freeprm.training.batches import Example
from freeprm.training.checkpoints import check_sharding, last_checkpoint, naming_a_full_disk
from freeprm.training.examples import GroupPreparer
from freeprm.training.forecast import DataSize, forecast
from freeprm.training.groups import read_groups
from freeprm.training.policy import give_back_rounded, load_policy, trains_rounded
from freeprm.training.reach import never_warm, out_of_reach, too_slow
from freeprm.training.settings import n_steps
from freeprm.training.setup import TrainingSetup
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Cost

_MANY_TOKENS = 50_000
"""From which on the allocator is worth a line: minutes of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFiles:
    """Where the graded rollouts of a run are, and how they are read."""

    inputs: Sequence[Path]
    """Files or run folders to train on."""
    dev: Sequence[Path] = ()
    """To evaluate on."""
    columns: Mapping[str, str] | None = None
    """Our column name -> theirs."""
    on_bad: OnBad = "raise"
    """Stop at a broken record, or count it."""


class TrainingData(NamedTuple):
    """What is trained on, and evaluated on."""

    preparer: GroupPreparer
    examples: list[Example]
    held_out: list[Example]
    counts: Counter[str]
    """Responses used, and those skipped by reason; those of what is evaluated on begin with `dev: `."""
    operations: list[Operation]


def read_data(
    setup: TrainingSetup, arguments: TrainingArguments, files: RolloutFiles, *, cache: Path | None
) -> TrainingData:
    """The examples of a run; `cache` keeps the reference's log-probabilities, and None leaves them out.

    Raises:
        RecordError: a broken record.
        DataError: nothing to train on.
        ModelError: a reference that does not fit the model.
    """
    reads = [
        read_groups(
            paths, setup.settings, setup.objective, columns=files.columns, on_bad=files.on_bad, held_out=held_out
        )
        for paths, held_out in ((files.inputs, False), (files.dev, True))
        if paths or not held_out
    ]
    preparer = GroupPreparer(
        setup, cache, process=arguments.distributed_state, mixed_precision=arguments.mixed_precision,
        run=str(Path(str(arguments.output_dir)).resolve()),
    )  # fmt: skip
    examples = []
    for read in reads:
        read.counts["prompts"] = len({group.problem_id for group in read.groups})
        examples.append(preparer.examples(read.groups, counts=read.counts))
    (counts, *of_dev), operations = [read.counts for read in reads], reads[0].operations
    for other in of_dev:
        counts.update({f"dev: {what}": n for what, n in other.items()})
    return TrainingData(preparer, examples[0], examples[1] if of_dev else [], counts, operations)


def warn_of(setup: TrainingSetup, arguments: TrainingArguments, data: TrainingData) -> None:
    """Warn where training cannot move its loss, and where GPUs are wasted."""
    reward = setup.reward
    doubts = [too_slow(setup.settings), never_warm(arguments, n_examples=len(data.examples))]
    if reward.with_reference and data.examples[0].ref_logps:  # a plan has none
        doubts.append(out_of_reach(data.examples, setup.objective, beta=reward.beta))
    if arguments.n_gpu > 1:
        doubts.append(
            f"one process drives {arguments.n_gpu} GPUs, which is slow and fills the first one's memory. Start one a "
            "GPU with `accelerate launch -m freeprm train ...`, or show it one with CUDA_VISIBLE_DEVICES"
        )
    for doubt in filter(None, doubts):
        warnings.warn(doubt, stacklevel=3)


def fit(setup: TrainingSetup, arguments: TrainingArguments, data: TrainingData) -> GroupTrainer:
    """Train, from the last checkpoint where there is one, and save the model in `arguments.output_dir`.

    Raises:
        ConfigError: 16-bit weights that are trained in shards.
        ModelError: the model cannot be loaded.
        RunFolderError: the last checkpoint is of weights that were sharded, and these are not, or the other way round.
    """
    settings, out = setup.settings, Path(str(arguments.output_dir))
    set_seed(settings.seed)
    if arguments.warmup_steps < 1 and n_steps(arguments, n_examples=len(data.examples)) == 1:
        arguments.warmup_steps = 0  # a share of one step would be all of it, at a learning rate of 0
    expected = forecast(setup, arguments, DataSize.of(data.examples, arguments))
    if arguments.process_index == 0:
        tell(f"train: {expected}")
        if arguments.device.type == "cpu" and expected.n_tokens > _MANY_TOKENS and has_slow_malloc():
            tell("train: glibc's malloc is slow here, up to twofold: pip install 'freeprm[cpu]', or preload jemalloc")
    with ConsoleCallback(expected.n_tokens) as console:
        policy = load_policy(settings, setup.start, arguments.device, valuation=setup.reward.valuation)
        trainer = GroupTrainer(
            policy, arguments, objective=setup.objective, reward=setup.reward, train_dataset=data.examples,
            eval_dataset=data.held_out if data.held_out else None, callbacks=[console],
        )  # fmt: skip
        for printing in (ProgressCallback, PrinterCallback):  # they print on stdout
            trainer.remove_callback(printing)
        if (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled) and trains_rounded(policy):
            raise ConfigError(
                f"dtype: is {settings.dtype!r}, and what rounding takes from weights cannot be given back to shards of "
                "them; shard float32 weights (dtype=float32, trainer.bf16=true), 16 bytes each over all GPUs"
            )
        checkpoint = last_checkpoint(out)
        if checkpoint is not None:
            check_sharding(Path(checkpoint), sharded=trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
        with naming_a_full_disk(out):
            trainer.train(resume_from_checkpoint=checkpoint)
    if trains_rounded(policy) and trainer.optimizer is not None:
        give_back_rounded(policy, trainer.optimizer)
    trainer.save_model(str(out))
    return trainer


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
    args, model, objective, state = trainer.args, trainer.model, trainer.objective, trainer.state
    assert model is not None
    lengths = [len(item.ids) for example in examples for item in example.encoded]
    mean, epochs, trained = sum(lengths) / len(lengths), state.epoch or 0.0, int(state.num_input_tokens_seen)
    has_adapters = any(not weight.requires_grad for weight in model.parameters())
    charges = [charge(TRAINING, trained, training_flops(shape, trained, mean, adapters=has_adapters))]
    if args.gradient_checkpointing:
        charges.append(charge(RECOMPUTED, trained, forward_flops(shape, trained, mean)))
    passes = {}  # of the policy and the reference besides, by charge
    n_evaluations = sum("eval_loss" in entry for entry in state.log_history)
    evaluated = n_evaluations * sum(n_read(model, example.encoded) for example in held_out)
    if objective.needs_kl:
        kl, of_evaluations = (sum(n_read(model, one.mismatched) for one in part) for part in (examples, held_out))
        passes[KL] = round(epochs * kl + n_evaluations * of_evaluations)
    if objective.needs_means:
        passes[MEANS] = trained + evaluated
    if n_evaluations:
        passes[EVALUATED] = evaluated
    if reference_tokens is not None:
        passes[REFERENCE] = reference_tokens
    return Cost(
        trained_tokens=trained,
        scored_tokens=sum(passes.values()),
        sequence_tokens=round(epochs * _sequence_tokens(examples, paired=objective.needs_pairs)),
        charges=(*charges, *forward_charges(shape, passes, mean)),
        devices=(device_name(args.device),) * (args.world_size * max(1, args.n_gpu)),
    )


def _sequence_tokens(examples: Sequence[Example], *, paired: bool) -> int:
    """Of one epoch: each response with its prompt, once, or once for every pair that it is in."""
    return sum(
        len(item.ids) * (example.labels.count(not label) if paired else 1)
        for example in examples
        for item, label in zip(example.encoded, example.labels, strict=True)
    )


class ConsoleCallback(TrainerCallback, ExitStack):
    """Shows a bar and a line for each log on stderr, so that stdout stays the command's own; logs the last step too.

    Once it is known it says how long the rest takes, token by token as a step took: the first one, or the second of
    many, because the first one is slower. Use it in a `with` around the training, whose end closes the bar.

    Args:
        n_tokens: that the policy will have read at the end.
    """

    def __init__(self, n_tokens: int):
        super().__init__()
        self._n_tokens = n_tokens
        self._advance: Advance | None = None
        self._clock: tuple[float, int] | None = None
        """When the step that is timed began, and the tokens read before; None once it has been timed."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, from where an interrupted run stopped."""
        if state.is_world_process_zero:
            self._advance = self.enter_context(bar("train", state.max_steps, unit="steps", done=state.global_step))
            self._clock = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self._advance:
            self._advance(1)
        if self._clock:
            (started, n_before), now, n_seen = self._clock, time.perf_counter(), state.num_input_tokens_seen
            if state.global_step == 1 and state.max_steps > _MANY_STEPS:
                self._clock = now, n_seen
                return
            left = (self._n_tokens - n_seen) * (now - started) / max(n_seen - n_before, 1)
            if left > 0:
                tell(f"train: {duration(left)} to go, as step {state.global_step} took {duration(now - started)}")
            self._clock = None

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


_MANY_STEPS = 10

_SHOWN = {
    "loss": "loss {:.4f}", "sign_accuracy": "sign accuracy {:.3f}", "step_accuracy": "step accuracy {:.3f}",
    "reward_right": "right {:+.3f}", "reward_wrong": "wrong {:+.3f}", "margin": "margin {:+.3f}",
    "kl_to_reference": "KL {:.3f}", "grad_norm": "gradient {:.3g}", "learning_rate": "lr {:.2g}",
}  # fmt: skip
