"""What each device holds while a model is trained: in a step, and before the first one, when models are loaded whole.

Weights, gradients and optimizer are counted, activations are what autograd keeps of a Llama-like layer, and logits of
the vocabulary what is held of them at a time. Not counted are CUDA's context, NCCL's buffers, kernels' workspaces and
fragments of memory. `docs/scale.md` has measured peaks beside these.

Source of ZeRO-3's bytes: Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1: 2 + 2 + 12 a weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self

from transformers import PreTrainedConfig, TrainingArguments

from freeprm.models.allocator import has_slow_malloc
from freeprm.models.batching import token_bytes
from freeprm.models.output_head import block_bytes
from freeprm.training.policy import Weights

Sharding = Literal["ddp", "fsdp2", "deepspeed_zero3"]
_LIBRARIES = 600 << 20
"""Bytes of a process on a CPU besides: the libraries, and the kernels that torch makes for each shape that it meets.
Measured with a model of 1 million weights, and with 135 million, adapters and recomputed activations."""
_HELD, _HELD_BY_GLIBC = 1.2, 1.6
"""Memory that a CPU's allocator holds for activations, over what they take: rows differ in length, so freed tensors
leave holes."""
_LIVE, _BUCKET = 10**9, 5 * 10**8
"""Weights that DeepSpeed puts together ahead of their use, and gradients that it sums up at a time, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a run is spread over devices; `configs/accelerate` has a file for each way."""

    n_devices: int = 1
    sharding: Sharding = "ddp"
    offload: bool = False
    """Weights, gradients and optimizer are in the machine's memory."""

    @classmethod
    def of(cls, arguments: TrainingArguments) -> Self:
        """How this process was launched."""
        state = arguments.distributed_state
        kind = "NO" if state is None else str(state.distributed_type.value)
        return cls(n_devices=arguments.world_size, sharding=_LAUNCHED.get(kind, "ddp"))


_LAUNCHED: Mapping[str, Sharding] = {"FSDP": "fsdp2", "DEEPSPEED": "deepspeed_zero3"}


PADDED = ("deepspeed_zero3",)
"""Under these rows are padded: only parts of the weights are there when a model is patched to read packed ones."""


class MicroBatch(NamedTuple):
    """Tokens that go through the policy at once."""

    n_tokens: int
    """Packed: prompts once."""
    n_targets: int
    """Of responses, each with a log-probability."""
    n_padded: int
    """Of its rows side by side, prompts and padding included: what is read where rows cannot be packed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Bytes of numbers."""

    computed: int
    """Of what layers compute with: 2 under mixed precision."""
    carried: int
    """Of what one layer hands on to the next."""


class Held(NamedTuple):
    """Bytes of weights, and of what training keeps of each, on one device."""

    parameters: int
    copies: int
    """16-bit copies for autocast, or what is put together of shards."""
    gradients: int
    buckets: int
    """Copies of gradients that are summed over devices."""
    optimizer: int | None
    """None for an optimizer of which it is not known here."""

    @property
    def total(self) -> int | None:
        """All together."""
        return None if self.optimizer is None else sum(self[:4]) + self.optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes on each device."""

    states: Held
    activations: int
    """Of the largest micro-batch."""
    logits: int
    """Of the vocabulary: what is held of them at a time, and the output head's gradient."""
    libraries: int
    """Of the process itself, where it trains in the same memory."""
    accumulates: bool
    """Gradients of earlier micro-batches are there while activations are. Else the ones come as the others go."""
    loading: int
    """Before training: the policy, whole where it is not loaded in shards."""
    reference: int
    """Before training: the whole reference while it reads one response at a time; 0 where it is not loaded."""
    host: int
    """Of the machine's memory: what is loaded passes through it, what is offloaded stays."""

    @property
    def training(self) -> int | None:
        """The most in a step."""
        if self.states.optimizer is None:
            return None
        passing, gradients = self.activations + self.logits, self.states.gradients
        kept = self.states.parameters + self.states.copies + self.states.buckets + self.states.optimizer
        return kept + self.libraries + (gradients + passing if self.accumulates else max(gradients, passing))

    @property
    def peak(self) -> int | None:
        """The most at any time."""
        return None if self.training is None else max(self.training, self.loading, self.reference)


def footprint(
    config: PreTrainedConfig, weights: Weights, largest: MicroBatch, *, spread: Spread, mixed: bool, recomputes: bool,
    accumulates: bool, reads_tokens: bool, reference_reads: int | None, on_cpu: bool,
) -> Footprint:  # fmt: skip
    """What each device holds.

    Args:
        config: of the text model.
        weights: of the policy.
        largest: micro-batch of a device.
        spread: over devices.
        mixed: matrices are multiplied in 16 bits.
        recomputes: activations are recomputed in the backward pass.
        accumulates: a step has several micro-batches.
        reads_tokens: log-probabilities are read; else values, which need no logits.
        reference_reads: tokens of the longest response with its prompt that the reference reads; None without one, or
            where its log-probabilities are there.
        on_cpu: the device is the machine's processor.
    """
    padded = spread.sharding in PADDED
    sharded = spread.sharding != "ddp"
    precision = Precision(
        computed=2 if mixed else weights.size, carried=2 if mixed and (sharded or weights.size == 2) else weights.size
    )
    states = _STATES[spread.sharding](config, weights, n_devices=spread.n_devices, mixed=mixed)
    whole = 0 if padded else weights.parameters
    offloaded = 0
    if spread.offload:
        offloaded = states.parameters + states.gradients + (states.optimizer or 0)
        states = states._replace(parameters=0, gradients=0, optimizer=states.optimizer and 0)
    held = 1.0 if not on_cpu else _HELD_BY_GLIBC if has_slow_malloc() else _HELD
    reference = reference_loaded = 0
    if reference_reads is not None:
        reference_loaded = weights.of_model * (2 if padded and mixed else weights.size)
        copies = 0 if padded else weights.copies
        passing = token_bytes(config, itemsize=precision.computed, padded_logits=padded)
        reference = reference_loaded + copies + reference_reads * passing
    kept = activation_bytes(
        config, largest.n_padded if padded else largest.n_tokens, precision=precision, recomputes=recomputes,
        adapters=weights.frozen > 0,
    )  # fmt: skip
    logits = _logits(config, largest, padded=padded, trains_head=not weights.frozen, on_cpu=on_cpu)
    return Footprint(
        states=states, activations=round(held * kept), logits=logits if reads_tokens else 0,
        libraries=_LIBRARIES if on_cpu else 0, accumulates=accumulates,
        loading=whole + (states.parameters if spread.sharding == "fsdp2" else 0), reference=reference,
        host=0 if on_cpu else max(whole, reference_loaded, offloaded),
    )  # fmt: skip


def _logits(config: PreTrainedConfig, largest: MicroBatch, *, padded: bool, trains_head: bool, on_cpu: bool) -> int:
    """Packed rows have a block of them at a time, padded ones all, in float32, and as many of their softmax."""
    if padded:
        return int(2 * 4 * config.vocab_size * largest.n_padded)
    gradient = 4 * config.vocab_size * config.hidden_size if trains_head else 0
    return block_bytes(largest.n_targets, config.vocab_size, on_cpu=on_cpu) + gradient


def _whole(config: PreTrainedConfig, weights: Weights, *, n_devices: int, mixed: bool) -> Held:
    """Data-parallel: everything on each device, and gradients once more in the buckets that are summed up."""
    return Held(
        parameters=weights.parameters, copies=weights.copies, gradients=weights.gradients,
        buckets=weights.gradients if n_devices > 1 else 0, optimizer=weights.optimizer,
    )  # fmt: skip


def _fsdp2(config: PreTrainedConfig, weights: Weights, *, n_devices: int, mixed: bool) -> Held:
    """A share of everything; whole at a time are embeddings, output head and two layers, with one layer's gradients."""
    ends = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    layer = max(weights.of_model - ends, 0) // config.num_hidden_layers
    trained_whole = 0 if weights.frozen else ends + layer
    return Held(
        parameters=weights.parameters // n_devices,
        copies=(2 if mixed else weights.size) * (ends + 2 * layer + trained_whole),
        gradients=weights.gradients // n_devices, buckets=0,
        optimizer=None if weights.optimizer is None else weights.optimizer // n_devices,
    )  # fmt: skip


def _zero3(config: PreTrainedConfig, weights: Weights, *, n_devices: int, mixed: bool) -> Held:
    """A share of everything; in mixed precision the optimizer has the float32 weights."""
    size = 2 if mixed else weights.size
    kept = weights.optimizer
    if kept is not None and mixed:
        kept += 4 * weights.trained
    return Held(
        parameters=size * (weights.trained + weights.frozen) // n_devices,
        copies=size * min(weights.of_model, _LIVE), gradients=size * weights.trained // n_devices,
        buckets=size * min(weights.trained, _BUCKET), optimizer=None if kept is None else kept // n_devices,
    )  # fmt: skip


class _States(Protocol):
    """What a device holds of weights under a way of sharding."""

    def __call__(self, config: PreTrainedConfig, weights: Weights, *, n_devices: int, mixed: bool) -> Held: ...


_STATES: Mapping[Sharding, _States] = {
    "ddp": _whole, "fsdp2": _fsdp2, "deepspeed_zero3": _zero3,
}  # fmt: skip


def activation_bytes(
    config: PreTrainedConfig, n_tokens: int, *, precision: Precision, recomputes: bool = False, adapters: bool = False
) -> int:
    """What autograd keeps of a forward pass in the layers of a Llama-like decoder.

    Of each token and layer, of width d with a = heads x head size and an MLP of width f: of each of two norms the
    input and the normed one in float32, and what goes into the products; queries, keys, values and what is attended
    to, twice; of the MLP gate, its activation, the other half, and their product.

        2 (4 + 4 + s) d + 5 s a + 4 s f      bytes, of numbers of s bytes

    Args:
        precision: of the numbers; s is what layers compute with.
        recomputes: only what enters each layer is kept, and one layer's activations at a time.
        adapters: the weights of norms are frozen, so what they are multiplied with is not kept: 2 (4 + s) d.
    """
    hidden, n_layers, n_heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    size = precision.computed
    attention = n_heads * (getattr(config, "head_dim", None) or hidden // n_heads)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    layer = 2 * ((4 if adapters else 8) + size) * hidden + size * (5 * attention + 4 * inner)
    return int(n_tokens * (layer + n_layers * precision.carried * hidden if recomputes else n_layers * layer))
