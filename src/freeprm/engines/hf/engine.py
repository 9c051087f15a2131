"""The `hf` engine: sampling with transformers on this machine, by any causal language model with a key-value cache.

By default a model draws in its checkpoint's precision, or in float32 if that is faster. A 16-bit checkpoint is the same
model in float32, so both are faithful, and the faster one depends on the processor: with tiles for bfloat16 (AMX) 16
bits take a fraction of the time, without them several times as long. So a trial decides. A float32 checkpoint stays in
float32: in 16 bits it would be another model.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from freeprm.core.flops import ModelShape
from freeprm.engines._reading import begin
from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.hf.best_first import BestOfSamples, best_of_samples
from freeprm.engines.hf.cache import stands_alone
from freeprm.engines.hf.decoding import DrawingLimits, Plan, Wanted, decode, no_count, plan
from freeprm.engines.hf.judging import Judge
from freeprm.engines.hf.tree_search import Search, Searched, tree_search
from freeprm.engines.hf.workers import DrawingJob, sample_in_workers
from freeprm.engines.hf.writing import Writer
from freeprm.errors import ConfigError
from freeprm.io.sandbox import cores
from freeprm.models.lengths import alike
from freeprm.models.loading import (
    Backbone,
    Dtype,
    LoadOptions,
    check_dtype,
    default_device,
    device_name,
    load_backbone,
    load_config,
    load_tokenizer,
    resolve,
    template_identity,
    weights_identity,
)
from freeprm.models.prompts import warn_of_plain_prompts
from freeprm.models.reference_logprobs import key_of

SMALL_BYTES = 256 << 20
"""Models up to this size leave cores idle, or waiting for each other, in a single process."""
_ROWS_PER_WORKER = 512  # fewer do not repay the start of a process, which takes seconds
_CPU_CACHE_BYTES = 1 << 30  # of one process
_ROWS = 1024
_CPU_LOGITS = 1 << 26  # at a time; some copies of them in float32 are a gigabyte
_GPU_CACHE_SHARE = 0.5  # of the device's memory; weights and activations need the rest


@dataclass(frozen=True, kw_only=True)
class HFEngine:
    """Draws responses; see `decoding`."""

    model: str
    """A folder, a hub id, a GGUF file, or `solver:base`."""
    workers: int | None = None
    """Processes, at most one a batch; by default one, or one a core for a large job with a small model on the CPU."""
    max_rows: int | None = None
    """Samples drawn at a time in one process; by default 1,024, fewer on a CPU where the vocabulary is large."""
    revision: str | None = None
    """Of a hub model."""
    dtype: Dtype = "auto"
    """See `LoadOptions`, as the next four; in a run of samples `auto` is decided by `choose_dtype`."""
    device: str | None = None
    attention: str | None = None
    trust_remote_code: bool = False
    template_date: str | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "max_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: is {value}; expected 1 or more")

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        """See `Engine`. A response is cut at `max_new_tokens`, or where prompt and response fill the context.

        Raises:
            ModelError: a prompt fills the context by itself; names the problem.
        """
        return self.counted(requests, params=params, count=no_count)

    def counted(
        self, requests: Sequence[Request], *, params: SamplingParams, count: Callable[[int], None]
    ) -> Iterator[Sampled]:
        """See `Counting`."""
        wanted = self._encoded(requests)
        self._warn_of_reach(wanted, params)
        n_workers = self._n_workers(sum(len(item.sample_idxs) for item in wanted))
        for part in alike(wanted, self._backbone.model.config, length=lambda item: len(item.ids)):
            limits = drawing_limits(self._backbone, params, part, max_rows=self.max_rows)
            yield from self._draw(plan(part, limits, n_workers=n_workers), params, n_workers, count)

    def identity(self) -> Mapping[str, Any]:
        """See `Engine`."""
        tokenizer = load_tokenizer(
            self._folder, trust_remote_code=self.trust_remote_code, template_date=self.template_date
        )
        weights = weights_identity(self._folder, role="weights")
        return {**weights, **template_identity(tokenizer), "dtype": self.dtype}

    def choose(self, params: SamplingParams) -> Mapping[str, Any]:
        """See `Choosing`: the precision."""
        if self.dtype != "auto":
            return {"dtype": self.dtype, "why": "asked for"}
        config = load_config(self._folder, trust_remote_code=self.trust_remote_code)
        with torch.inference_mode():
            return choose_dtype(config, default_device(self.device), params, trust_remote_code=self.trust_remote_code)

    def chosen(self, choice: Mapping[str, Any]) -> Self:
        """See `Choosing`."""
        return replace(self, dtype=check_dtype(choice["dtype"]))

    def shape(self) -> ModelShape:
        """See `Engine`."""
        return ModelShape.of(load_config(self._folder, trust_remote_code=self.trust_remote_code).get_text_config())

    def devices(self) -> tuple[str, ...]:
        """See `OnDevices`."""
        return (device_name(self.device),)

    def best_first(
        self, requests: Sequence[Request], *, params: SamplingParams, judge: Judge, batch: int
    ) -> Iterator[BestOfSamples]:
        """The best of each problem's samples, found while they are drawn in this process; see `best_of_samples`."""
        with _one_thread_if(self._is_small):
            writer = Writer(self._backbone, params=params)
            encoded = self._encoded(requests)
            self._warn_of_reach(encoded, params)
            yield from best_of_samples(encoded, writer=writer, judge=judge, batch=batch)

    def search(
        self, requests: Sequence[Request], *, params: SamplingParams, judge: Judge, how: Search
    ) -> Iterator[Searched]:
        """The solutions that a guided search of each problem ends with, in this process; see `tree_search`."""
        with _one_thread_if(self._is_small):
            writer = Writer(self._backbone, params=params, keeps_finished=True)
            encoded = self._encoded(requests)
            self._warn_of_reach(encoded, params)
            yield from tree_search(encoded, writer=writer, judge=judge, how=how)

    def key(self) -> str:
        """Identifies the model; see `models.reference_logprobs`."""
        return key_of(self._backbone.folder, self._backbone.tokenizer, dtype=self._backbone.dtype)

    @property
    def _folder(self) -> Path:
        return resolve(self.model, revision=self.revision)

    @cached_property
    def _backbone(self) -> Backbone:
        backbone = load_backbone(self.model, self._load, revision=self.revision)
        warn_of_plain_prompts(backbone.tokenizer, model=self.model)
        return backbone

    @property
    def _load(self) -> LoadOptions:
        return LoadOptions(
            device=self.device, dtype=self.dtype, attention=self.attention, trust_remote_code=self.trust_remote_code,
            template_date=self.template_date,
        )  # fmt: skip

    def _draw(
        self, planned: Plan, params: SamplingParams, n_workers: int, count: Callable[[int], None]
    ) -> Iterator[Sampled]:
        groups = [group for group in planned.groups if any(set(item.sample_idxs) - item.done for item in group)]
        if not groups:
            return
        if min(n_workers, len(planned.groups)) > 1:
            n_threads = max(1, cores() // n_workers)
            job = DrawingJob(
                model=str(self._backbone.folder), load=self._load, n_threads=n_threads, params=params, room=planned.room
            )
            yield from sample_in_workers(job, groups, n_workers=min(n_workers, len(groups)), count=count)
            return
        with _one_thread_if(self._is_small):
            yield from decode(self._backbone, groups, params=params, room=planned.room, count=count)

    def _encoded(self, requests: Sequence[Request]) -> list[Wanted]:
        """Prompts, with the beginnings of responses, encoded as in training and scoring."""
        backbone = self._backbone
        begun = begin(
            backbone.tokenizer, requests, config=backbone.model.config, max_length=backbone.max_length,
            model=self.model,
        )  # fmt: skip
        return [
            Wanted(
                problem_id=request.problem_id, prompt=request.prompt, ids=item.ids, sample_idxs=request.sample_idxs,
                done=request.done, prefix=item.prefix,
            )
            for request, item in zip(requests, begun, strict=True)
        ]  # fmt: skip

    def _warn_of_reach(self, encoded: Sequence[Wanted], params: SamplingParams) -> None:
        """Warn of responses that will end before `max_new_tokens` and before the context is full."""
        backbone = self._backbone
        lengths = [len(item.ids) for item in encoded]
        cut = [n for n in lengths if backbone.reach(n) < min(backbone.max_length, n + params.max_new_tokens)]
        if cut:
            warnings.warn(
                f"{self.model}: after {len(cut)} of {len(lengths)} prompts a response is ended at "
                f"{backbone.reach(min(cut)):,} tokens with its prompt (stop reason 'context'): beyond, the model reads "
                "all of a text with other positions, and the keys that were kept would be wrong",
                stacklevel=3,
            )

    @property
    def _is_small(self) -> bool:
        model = self._backbone.model
        return model.device.type == "cpu" and model.num_parameters() * model.dtype.itemsize <= SMALL_BYTES

    def _n_workers(self, n_rows: int) -> int:
        """Decided by the whole job, not by what is left of it, so that resuming changes nothing."""
        device = self._backbone.model.device.type
        if device != "cpu" and self.workers not in (None, 1):
            raise ConfigError(f"workers: is {self.workers}, but the model is on {device}; several are for the CPU only")
        if self.workers is not None:
            return self.workers
        return min(cores(), max(1, n_rows // _ROWS_PER_WORKER)) if self._is_small else 1


def drawing_limits(
    backbone: Backbone, params: SamplingParams, wanted: Sequence[Wanted], *, max_rows: int | None = None
) -> DrawingLimits:
    """What the model's device holds while it draws.

    Args:
        backbone: the model.
        params: how to draw.
        wanted: prompts that may be read together.
        max_rows: see `HFEngine`.
    """
    model = backbone.model
    config = model.config.get_text_config()
    shape = ModelShape.of(config)
    head_size = shape.attention_width // config.num_attention_heads
    n_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    on_gpu = model.device.type == "cuda"
    memory = torch.cuda.get_device_properties(model.device).total_memory if on_gpu else 0
    usual = _ROWS if on_gpu else min(_ROWS, max(1, _CPU_LOGITS // config.vocab_size))
    return DrawingLimits(
        max_samples=1 if stands_alone(backbone) else max_rows or usual,
        cache_bytes=int(memory * _GPU_CACHE_SHARE) if on_gpu else _CPU_CACHE_BYTES,
        bytes_per_token=2 * config.num_hidden_layers * n_heads * head_size * model.dtype.itemsize,
        max_new_tokens=params.max_new_tokens,
        max_length=backbone.reach(max(len(item.ids) for item in wanted)),
    )


@contextmanager
def _one_thread_if(small: bool) -> Iterator[None]:
    """Small matrices gain nothing from a second thread, and lose much if other work has its core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_TRIAL_ROWS = 16  # samples drawn at a time in the trial
_ROUNDS = 4  # the fastest counts
_PART = 1 << 25  # weights of a matrix that are multiplied; time is proportional to them
_AT_LEAST = 1 << 23  # weights of one shape, in several matrices; fewer would stay in the processor's cache
_GAIN = 1.1  # required of the products, since everything else is no faster in 16 bits


def choose_dtype(
    config: PreTrainedConfig, device: torch.device, params: SamplingParams, *, trust_remote_code: bool
) -> dict[str, Any]:
    """The `dtype` to draw in, and `why`; after a trial also the `seconds` of each and a message, `said`.

    Args:
        config: of the model, whose weights are not needed.
        device: of the model.
        params: with `logprobs` the checkpoint's precision is kept, in which the reference is read.
        trust_remote_code: see `LoadOptions`.
    """
    own = config.dtype
    if not isinstance(own, torch.dtype):
        return {"dtype": "auto", "why": "the checkpoint does not say its own"}
    name = str(own).removeprefix("torch.")
    if own not in (torch.bfloat16, torch.float16):
        return {"dtype": name, "why": "the checkpoint's own"}
    if params.logprobs:
        return {"dtype": name, "why": "the checkpoint's own, as noted log-probabilities are to be"}
    if device.type == "cuda" and own == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return {"dtype": "float32", "why": "the device has no bfloat16"}
    if device.type != "cpu":
        return {"dtype": name, "why": "the checkpoint's own"}
    seconds = {"float32": 0.0, name: 0.0}
    for (n_out, n_in), count in _shapes(config, trust_remote_code=trust_remote_code).items():
        for dtype, taken in _trial(n_out, n_in, (torch.float32, own)).items():
            seconds[str(dtype).removeprefix("torch.")] += count * taken
    ratio = seconds["float32"] / seconds[name]
    chosen = name if ratio > _GAIN else "float32"
    return {
        "dtype": chosen,
        "why": f"{name} was tried and takes {1 / ratio:.2f} of the time of float32",
        "seconds": {dtype: round(taken, 4) for dtype, taken in seconds.items()},
        "said": f"draws in {chosen}: for {_TRIAL_ROWS} tokens the model's products take {seconds[name]:.3f} s in "
        f"{name}, {seconds['float32']:.3f} s in float32",
    }


def _shapes(config: PreTrainedConfig, *, trust_remote_code: bool) -> Counter[tuple[int, int]]:
    """(out, in) sizes of the model's linear layers, counted."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return Counter(
        (module.out_features, module.in_features) for module in model.modules() if isinstance(module, nn.Linear)
    )


def _trial(n_out: int, n_in: int, dtypes: tuple[torch.dtype, ...]) -> dict[torch.dtype, float]:
    """Seconds of a product with a matrix of this shape, for each precision in turn."""
    part = min(n_out, max(1, _PART // n_in))
    copies = max(1, min(8, _AT_LEAST // (part * n_in)))
    tried = {
        dtype: (torch.full((_TRIAL_ROWS, n_in), 0.5, dtype=dtype), torch.full((copies, part, n_in), 0.5, dtype=dtype))
        for dtype in dtypes
    }
    best = dict.fromkeys(dtypes, float("inf"))
    for _ in range(_ROUNDS):
        for dtype, (rows, matrices) in tried.items():
            started = time.perf_counter()
            for matrix in matrices:
                nn.functional.linear(rows, matrix)
            best[dtype] = min(best[dtype], (time.perf_counter() - started) / copies * n_out / part)
    return best
