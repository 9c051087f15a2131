"""What a training run will take, said before it starts: steps, tokens, FLOPs and memory; the time is that of a step.

Tokens and FLOPs are those that the cost of the run will have, up to what batches share beyond a prompt. Memory is an
estimate: weights, gradients and optimizer are counted, activations are what autograd keeps of a Llama-like layer. Two
trainings of 135 million weights on a CPU, said to take 6.0 and 6.4 GB, took 5.2 and 7.5. No time is foretold without
having been measured: `ConsoleCallback` tells it after the first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, TrainingArguments

from freeprm.core.flops import ModelShape, forward_flops, training_flops
from freeprm.models.encoding import Encoded
from freeprm.models.loading import load_config
from freeprm.models.logprobs import distinct
from freeprm.models.packing import pack
from freeprm.training.batches import Example
from freeprm.training.policy import Weights, count_weights
from freeprm.training.settings import n_steps
from freeprm.training.setup import TrainingSetup

_LIBRARIES = 1 << 30
"""Bytes of a process on a CPU besides: the libraries, and the kernels that torch makes for each shape that it meets.
Measured with a model of 12 million weights, whose training peaked at 1.4 GB."""
_HELD = 2
"""Memory that a CPU's allocator holds for activations, over what they take: rows differ in length, so freed tensors
leave holes. After three steps of 135 million weights 2.7 GB of glibc's heap of 4.3 were free, and none given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What training takes, without the reference's pass and evaluations."""

    n_responses: int
    n_prompts: int
    """Groups, of which a large one is several."""
    n_steps: int
    """Of the optimizer."""
    n_tokens: int
    """Through the policy forward and backward, over all epochs; a prompt is read once for its responses."""
    flops: float
    """Of those, and of passes without gradients that the objective takes besides."""
    weights: Weights
    activation_bytes: int
    """Kept of the largest micro-batch for its backward pass, with what an allocator holds besides."""
    library_bytes: int
    """Of the process itself, where it trains in the same memory."""

    @property
    def n_bytes(self) -> int | None:
        """Memory in all, over all processes that shard the weights; None where it is not known what weights take."""
        known = self.weights.n_bytes
        return None if known is None else known + self.activation_bytes + self.library_bytes

    def __str__(self) -> str:
        memory = "an unknown amount" if self.n_bytes is None else f"about {self.n_bytes / 1e9:.1f} GB"
        return (
            f"{self.n_responses:,} responses of {self.n_prompts:,} prompts, {self.n_steps:,} "
            f"{'step' if self.n_steps == 1 else 'steps'}, "
            f"{self.n_tokens:,} tokens, {self.flops:.2g} FLOPs; {memory} of memory"
        )


def forecast(setup: TrainingSetup, arguments: TrainingArguments, examples: Sequence[Example]) -> Forecast:
    """What training on these examples will take; no weights are loaded."""
    settings, objective = setup.settings, setup.objective
    whole = load_config(setup.start, trust_remote_code=settings.trust_remote_code)
    config = whole.get_text_config()
    steps = n_steps(arguments, n_examples=len(examples))
    size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    epochs = steps * size / len(examples) if arguments.max_steps > 0 else arguments.num_train_epochs
    read = [_n_read(example.encoded) for example in examples]
    n_tokens = round(epochs * sum(read))
    lengths = [len(item.ids) for example in examples for item in example.encoded]
    mean = sum(lengths) / len(lengths)
    shape = ModelShape.of(config, n_outputs=None if setup.reward.valuation is None else 0)
    recomputes = bool(arguments.gradient_checkpointing)
    flops = training_flops(shape, n_tokens, mean, checkpointing=recomputes, adapters=settings.lora > 0).total
    besides = n_tokens if objective.needs_means else 0
    if objective.needs_kl:
        besides += round(epochs * sum(_n_read(example.mismatched) for example in examples))
    mixed = bool(arguments.bf16 or arguments.fp16)
    dtype: Any = whole.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    itemsize = 2 if mixed else (dtype or torch.float32).itemsize
    on_cpu = arguments.device.type == "cpu"
    largest = sum(sorted(read)[-arguments.train_batch_size :])
    return Forecast(
        n_responses=len(lengths), n_prompts=len(examples), n_steps=steps, n_tokens=n_tokens,
        flops=flops + forward_flops(shape, besides, mean).total,
        weights=count_weights(settings, setup.start, arguments),
        activation_bytes=activation_bytes(config, largest, itemsize=itemsize, recomputes=recomputes)
        * (_HELD if on_cpu else 1),
        library_bytes=_LIBRARIES if on_cpu else 0,
    )  # fmt: skip


def _n_read(batch: Sequence[Encoded]) -> int:
    """Tokens that go through a model that reads packed rows."""
    return len(pack(distinct(batch)[0]))


def activation_bytes(config: PreTrainedConfig, n_tokens: int, *, itemsize: int, recomputes: bool = False) -> int:
    """What autograd keeps of a forward pass in the layers of a Llama-like decoder.

    Of each token and layer, of width d with a = heads x head size and an MLP of width f: of each of two norms the
    input and the normed one in float32, and what goes into the products; queries, keys, values and what is attended
    to, twice; of the MLP gate, its activation, the other half, and their product.

        2 (4 + 4 + s) d + 5 s a + 4 s f      bytes, of numbers of s bytes

    Args:
        itemsize: s; 2 under mixed precision.
        recomputes: only what enters each layer is kept, and one layer's activations at a time.
    """
    hidden, n_layers, n_heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    attention = n_heads * (getattr(config, "head_dim", None) or hidden // n_heads)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    layer = 2 * (8 + itemsize) * hidden + itemsize * (5 * attention + 4 * inner)
    return int(n_tokens * (layer + n_layers * 4 * hidden if recomputes else n_layers * layer))
