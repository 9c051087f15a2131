"""What a training run will take, said before it starts: steps, tokens, FLOPs, and memory; the time is that of a step.

Tokens and FLOPs are those that the cost of the run will have, up to what batches share beyond a prompt. Memory is that
of `footprint`, on each device. No time is foretold without having been measured: `ConsoleCallback` tells it after the
first step, and `launch_plan` at a utilisation that is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from freeprm.core.flops import ModelShape, forward_flops, training_flops
from freeprm.models.encoding import Encoded
from freeprm.models.loading import load_config
from freeprm.models.logprobs import distinct
from freeprm.models.packing import pack
from freeprm.training.batches import Example
from freeprm.training.footprint import PADDED, Footprint, MicroBatch, Spread, footprint
from freeprm.training.policy import Weights, count_weights
from freeprm.training.settings import n_steps, prompts_per_step
from freeprm.training.setup import TrainingSetup


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSize:
    """How much data there is, as far as its cost goes."""

    n_prompts: int
    """Groups, of which a large one is several."""
    n_responses: int
    n_tokens: int
    """Of one epoch; a prompt is read once for its responses, and equal responses once."""
    n_mismatched: int
    """Tokens of one epoch to estimate a KL from; read where the objective needs it."""
    mean_length: float
    """Tokens of a response with its prompt."""
    longest: int
    """Of these."""
    largest: MicroBatch

    @classmethod
    def of(cls, examples: Sequence[Example], arguments: TrainingArguments) -> Self:
        """That of examples; the largest micro-batch has the largest groups."""
        read = [_n_read(example.encoded) for example in examples]
        lengths = [len(item.ids) for example in examples for item in example.encoded]
        largest = sorted(range(len(examples)), key=read.__getitem__)[-arguments.train_batch_size :]
        rows = [item for index in largest for item in distinct(examples[index].encoded)[0]]
        return cls(
            n_prompts=len(examples), n_responses=len(lengths), n_tokens=sum(read),
            n_mismatched=sum(_n_read(example.mismatched) for example in examples),
            mean_length=sum(lengths) / len(lengths), longest=max(lengths),
            largest=MicroBatch(
                n_tokens=sum(read[index] for index in largest), n_targets=sum(item.n_response for item in rows),
                n_padded=len(rows) * max(len(item.ids) for item in rows),
            ),
        )  # fmt: skip


def _n_read(batch: Sequence[Encoded]) -> int:
    """Tokens that go through a model that reads packed rows."""
    return len(pack(distinct(batch)[0])) if batch else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What training takes, without evaluations."""

    data: DataSize
    n_steps: int
    """Of the optimizer."""
    n_tokens: int
    """Through the policy forward and backward, over all epochs."""
    flops: float
    """Of those, and of passes without gradients that the objective takes besides."""
    reference_flops: float
    """Of the reference's pass over all responses, once; 0 without it."""
    weights: Weights
    footprint: Footprint
    spread: Spread

    @property
    def n_bytes(self) -> int | None:
        """Memory of each device while it trains; None where it is not known what the optimizer keeps."""
        return self.footprint.training

    def __str__(self) -> str:
        memory = "an unknown amount" if self.n_bytes is None else f"about {self.n_bytes / 1e9:.1f} GB"
        each = f" on each of {self.spread.n_devices} devices" if self.spread.n_devices > 1 else ""
        return (
            f"{self.data.n_responses:,} responses of {self.data.n_prompts:,} prompts, {self.n_steps:,} "
            f"{'step' if self.n_steps == 1 else 'steps'}, "
            f"{self.n_tokens:,} tokens, {self.flops:.2g} FLOPs; {memory} of memory{each}"
        )


def forecast(
    setup: TrainingSetup, arguments: TrainingArguments, data: DataSize, *, spread: Spread | None = None,
    loads_reference: bool = True, on_cpu: bool | None = None,
) -> Forecast:  # fmt: skip
    """What training on data of a size will take; no weights are loaded.

    Args:
        setup: of the run.
        arguments: of the trainer.
        data: the size.
        spread: over devices; by default as this process was launched.
        loads_reference: its log-probabilities are not there yet.
        on_cpu: the devices are processors; by default whatever this process trains on.
    """
    settings, objective = setup.settings, setup.objective
    spread = spread or Spread.of(arguments)
    on_cpu = arguments.device.type == "cpu" if on_cpu is None else on_cpu
    config = load_config(setup.start, trust_remote_code=settings.trust_remote_code).get_text_config()
    steps = n_steps(arguments, n_examples=data.n_prompts, n_processes=spread.n_devices)
    size = prompts_per_step(arguments, n_processes=spread.n_devices)
    epochs = steps * size / data.n_prompts if arguments.max_steps > 0 else arguments.num_train_epochs
    mean, once = data.mean_length, data.n_tokens
    if spread.sharding in PADDED:  # each with its prompt; padding is not counted
        once = round(mean * data.n_responses)
    n_tokens = round(epochs * once)
    reads_tokens = setup.reward.valuation is None
    shape = ModelShape.of(config, n_outputs=None if reads_tokens else 0)
    recomputes, adapters = bool(arguments.gradient_checkpointing), settings.lora > 0
    besides = n_tokens if objective.needs_means else 0
    reference_tokens = once if setup.reward.with_reference and loads_reference else 0
    if objective.needs_kl:
        besides += round(epochs * data.n_mismatched)
        reference_tokens += data.n_mismatched if reference_tokens else 0
    mixed = arguments.mixed_precision != "no"
    weights = count_weights(
        settings, setup.start, mixed=mixed, optimizer=OptimizerNames(arguments.optim).value
    )  # fmt: skip
    return Forecast(
        data=data, n_steps=steps, n_tokens=n_tokens, weights=weights, spread=spread,
        flops=training_flops(shape, n_tokens, mean, checkpointing=recomputes, adapters=adapters).total
        + forward_flops(shape, besides, mean).total,
        reference_flops=forward_flops(shape, reference_tokens, mean).total,
        footprint=footprint(
            config, weights, data.largest, spread=spread, mixed=mixed, recomputes=recomputes,
            accumulates=arguments.gradient_accumulation_steps > 1, reads_tokens=reads_tokens,
            reference_reads=data.longest if reference_tokens else None, on_cpu=on_cpu,
        ),
    )  # fmt: skip
