"""The `vllm` engine: vLLM's offline `LLM` on the GPUs of this machine.

Prompts are encoded here, as in training and scoring, and texts are decoded here; vLLM takes and returns only token ids.
Calls follow vLLM 0.33, `vllm/entrypoints/llm.py` and `vllm/sampling_params.py`.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from transformers import GenerationConfig, PreTrainedTokenizerBase

from freeprm.core.flops import ModelShape
from freeprm.engines._reading import begin
from freeprm.engines.base import Request, Sampled, SamplingParams, StopReason
from freeprm.engines.hf.drawing import end_ids, response_text, sample_identity, stop_position
from freeprm.errors import ConfigError, ModelError, needs_extra
from freeprm.models.gguf import is_gguf
from freeprm.models.loading import (
    adapter_base,
    device_name,
    load_config,
    load_tokenizer,
    resolve,
    template_identity,
    weights_hash,
)
from freeprm.models.prompts import warn_of_plain_prompts
from freeprm.models.reference_logprobs import key_of, noted_of


class _Wanted(NamedTuple):
    """One sample to draw."""

    request: Request
    prompt_ids: list[int]
    prefix: str
    """The beginning of a response; its ids are the last of `prompt_ids`."""
    sample_idx: int


@dataclass(frozen=True, kw_only=True)
class VLLMEngine:
    """Draws responses with vLLM.

    A sample's seed is made from its prompt, its index and the run's seed. Its logits depend on the rest of the batch
    through rounding, unless VLLM_BATCH_INVARIANT=1 is set, so a resumed run draws from the same distributions as one
    never interrupted, but not always the same tokens.
    """

    model: str
    """A folder or a hub id; a whole model, no adapter."""
    revision: str | None = None
    """Of a hub model."""
    dtype: str = "auto"
    """float32, float16, bfloat16, or "auto": the checkpoint's own, except that vLLM takes float16 for float32."""
    tensor_parallel_size: int = 1
    """GPUs for one copy of the model."""
    gpu_memory_utilization: float = 0.9
    """Share of each GPU's memory for weights and cache."""
    max_model_len: int | None = None
    """Tokens of prompt and response; by default the model's context."""
    quantization: str | None = None
    """Quantisation of the weights, e.g. awq or fp8, if the checkpoint does not say."""
    enable_prefix_caching: bool = True
    """Encode a shared prompt, or beginning of a response, once for all samples."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""
    template_date: str | None = None
    """See `LoadOptions`."""
    samples_per_call: int = 4096
    """Samples sent to vLLM at a time; they are returned, and written to disk, when all of them are drawn."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `vllm.LLM`, e.g. {"enforce_eager": true}."""

    def __post_init__(self) -> None:
        for name in ("tensor_parallel_size", "samples_per_call"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: is {getattr(self, name)}; expected 1 or more")

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        """See `Engine`.

        Raises:
            MissingExtraError: vLLM is not installed.
            ModelError: vLLM cannot load the model or gave a sample up, or a prompt fills the context by itself.
        """
        wanted = self._wanted(requests)
        for start in range(0, len(wanted), self.samples_per_call):
            yield from self._drawn(wanted[start : start + self.samples_per_call], params)

    def identity(self) -> Mapping[str, Any]:
        """See `Engine`."""
        return {
            "weights_sha256": weights_hash(self._folder), **template_identity(self._tokenizer),
            "dtype": self.dtype, "quantization": self.quantization, "max_model_len": self.max_model_len,
            "options": dict(self.options),
        }  # fmt: skip

    def shape(self) -> ModelShape:
        """See `Engine`."""
        config = load_config(self._folder, trust_remote_code=self.trust_remote_code)
        return ModelShape.of(config.get_text_config())

    def devices(self) -> tuple[str, ...]:
        """See `OnDevices`."""
        return (device_name(),) * self.tensor_parallel_size

    def _drawn(self, wanted: Sequence[_Wanted], params: SamplingParams) -> Iterator[Sampled]:
        vllm = _vllm()
        outputs = self._llm.generate(
            [vllm.TokensPrompt(prompt_token_ids=item.prompt_ids) for item in wanted],
            [vllm.SamplingParams(**self._params(item, params)) for item in wanted],
            use_tqdm=False,
        )
        for item, output in zip(wanted, outputs, strict=True):
            yield self._sampled(item, output.outputs[0], params)

    def _params(self, item: _Wanted, params: SamplingParams) -> dict[str, Any]:
        """vLLM's parameters for one sample; a request each, so that those drawn already can be left out."""
        identity = sample_identity(
            item.request.prompt, sample_idx=item.sample_idx, seed=params.seed, prefix=item.prefix
        )
        return {
            "n": 1,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_new_tokens,
            "seed": int.from_bytes(blake2b(identity, digest_size=8).digest()) >> 1,  # it takes 63 bits
            "stop": list(params.stop),
            "stop_token_ids": self._ends,
            "logprobs": 0 if params.logprobs else None,  # 0: of the drawn token alone
            "detokenize": bool(params.stop),
            "skip_special_tokens": False,
        }

    def _sampled(self, item: _Wanted, output: Any, params: SamplingParams) -> Sampled:
        ids = tuple(output.token_ids)
        name = f"problem {item.request.problem_id!r}, sample {item.sample_idx}"
        reason = _stop_reason(output, params, name=name)
        text = response_text(self._tokenizer, item.prompt_ids, ids[:-1] if reason == "end" else ids)
        return Sampled(
            problem_id=item.request.problem_id,
            sample_idx=item.sample_idx,
            text=item.prefix + text[: stop_position(text, params.stop)],
            stop_reason=reason,
            token_ids=ids,
            n_prompt_tokens=len(item.prompt_ids),
            n_generated_tokens=len(ids),
            token_logprobs=_logprobs(ids, output.logprobs) if params.logprobs else None,
            logprobs_of=noted_of(self._key, item.prompt_ids) if params.logprobs and self._key else None,
        )

    def _wanted(self, requests: Sequence[Request]) -> list[_Wanted]:
        """The samples not drawn yet, with encoded prompts."""
        longest = self._llm.llm_engine.model_config.max_model_len
        config = load_config(self._folder, trust_remote_code=self.trust_remote_code)
        begun = begin(self._tokenizer, requests, config=config, max_length=longest, model=self.model)
        return [
            _Wanted(request, list(item.ids), item.prefix, index)
            for request, item in zip(requests, begun, strict=True)
            for index in request.sample_idxs
            if index not in request.done
        ]

    @cached_property
    def _llm(self) -> Any:
        if is_gguf(self._folder):
            raise ModelError(f"{self.model}: a GGUF file, which the engine hf dequantises; give vLLM a model folder")
        if adapter_base(self._folder) is not None:
            raise ModelError(f"{self.model}: a LoRA adapter; expected a whole model. Merge it into its base first")
        vllm = _vllm()
        warn_of_plain_prompts(self._tokenizer, model=self.model)
        try:
            return vllm.LLM(
                model=str(self._folder),
                dtype=self.dtype,
                tensor_parallel_size=self.tensor_parallel_size,
                gpu_memory_utilization=self.gpu_memory_utilization,
                max_model_len=self.max_model_len,
                quantization=self.quantization,
                enable_prefix_caching=self.enable_prefix_caching,
                trust_remote_code=self.trust_remote_code,
                logprobs_mode="raw_logprobs",  # of the model itself: before temperature and top-p
                **self._head_in_float32(),
                **self.options,
            )
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"{self.model}: vLLM cannot load it ({type(error).__name__}: {error})") from error

    def _head_in_float32(self) -> dict[str, Any]:
        """Logits that are not rounded to 16 bits, unless weights are quantised or the options set `hf_overrides`.

        A vLLM that has this for classifiers only warns and goes on without it.
        """
        free = self.quantization is None and "hf_overrides" not in self.options
        return {"hf_overrides": {"head_dtype": "float32"}} if free else {}

    @cached_property
    def _folder(self) -> Path:
        return resolve(self.model, revision=self.revision)

    @cached_property
    def _key(self) -> str | None:
        """The model of its log-probabilities; None if quantization makes it another one."""
        if self.quantization:
            return None
        config = self._llm.llm_engine.model_config
        dtype, logits = (str(kept).removeprefix("torch.") for kept in (config.dtype, config.head_dtype))
        return key_of(self._folder, self._tokenizer, dtype=dtype, logits=logits)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._folder, trust_remote_code=self.trust_remote_code, template_date=self.template_date)

    @cached_property
    def _ends(self) -> list[int]:
        try:
            named = GenerationConfig.from_pretrained(self._folder).eos_token_id
        except OSError:  # the model has no generation_config.json
            config = load_config(self._folder, trust_remote_code=self.trust_remote_code)
            named = getattr(config.get_text_config(), "eos_token_id", None)
        return end_ids(self._tokenizer, named)


def _vllm() -> Any:
    with needs_extra("vllm", "the engine `vllm`"):
        return importlib.import_module("vllm")


def _stop_reason(output: Any, params: SamplingParams, *, name: str) -> StopReason:
    """Our name for vLLM's reason: `stop` by a text is a stop string, otherwise an end token."""
    if output.finish_reason == "stop":
        return "stop" if isinstance(output.stop_reason, str) else "end"
    if output.finish_reason == "length":
        return "length" if len(output.token_ids) >= params.max_new_tokens else "context"
    raise ModelError(f"{name}: vLLM gave it up ({output.finish_reason}); its log says why. The same command goes on")


def _logprobs(ids: Sequence[int], positions: Sequence[Mapping[int, Any]]) -> tuple[float, ...]:
    return tuple(float(position[token].logprob) for token, position in zip(ids, positions, strict=True))


PLUGIN = VLLMEngine
