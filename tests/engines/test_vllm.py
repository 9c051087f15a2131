"""The vLLM engine against a stand-in for vLLM with a real tiny model behind it, and its calls against vLLM's source.

vLLM needs a GPU. The stand-in shows what the engine makes of what vLLM gives; that vLLM takes what it is told is read
from its source, where vLLM is installed or its package unpacked at FREEPRM_VLLM_SOURCE.
"""

import ast
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from freeprm.engines.base import Request, SamplingParams
from freeprm.engines.hf import HFEngine
from freeprm.engines.vllm import VLLMEngine
from freeprm.errors import ConfigError, MissingExtraError, ModelError
from freeprm.io.plugins import load
from freeprm.models.loading import load_backbone

SaveTiny = Callable[..., Path]
PROMPTS = ("ab", "how many apples?", "a b c")
PARAMS = SamplingParams(temperature=1.0, max_new_tokens=12, seed=3)


@dataclass(kw_only=True)
class FakeParams:
    """The part of vLLM's SamplingParams that the engine sets."""

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: list[str]
    stop_token_ids: list[int]
    logprobs: int | None
    detokenize: bool
    skip_special_tokens: bool


class FakeLLM:
    """Draws one sample at a time with a full forward pass a token, and ends it as vLLM does."""

    made: list[dict[str, Any]] = []  # noqa: RUF012  # arguments of each one made
    calls: list[int] = []  # noqa: RUF012  # prompts of each call
    dtype = head_dtype = "torch.float32"

    def __init__(self, **arguments: Any):
        self.made.append(arguments)
        self._backbone = load_backbone(arguments["model"])
        self._context = arguments["max_model_len"] or self._backbone.max_length
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=self._context, dtype=self.dtype, head_dtype=self.head_dtype)
        )

    def generate(self, prompts: Sequence[Any], sampling_params: Sequence[FakeParams], *, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self.calls.append(len(prompts))
        return [
            SimpleNamespace(outputs=[self._draw(prompt["prompt_token_ids"], params)])
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    @torch.no_grad()
    def _draw(self, prompt: list[int], params: FakeParams) -> Any:
        generator = torch.Generator().manual_seed(params.seed)
        ids: list[int] = []
        logprobs: list[dict[int, Any]] = []
        finish: tuple[str, int | str | None] | None = None
        while finish is None:
            logits = self._backbone.model(torch.tensor([[*prompt, *ids]])).logits[0, -1]
            if params.temperature == 0:
                token = int(logits.argmax())
            else:
                token = int((logits / params.temperature).softmax(-1).multinomial(1, generator=generator))
            ids.append(token)
            logprobs.append({token: SimpleNamespace(logprob=float(logits.log_softmax(-1)[token]))})
            finish = self._finish(prompt, ids, params)
        return SimpleNamespace(
            token_ids=ids, logprobs=logprobs if params.logprobs is not None else None, finish_reason=finish[0],
            stop_reason=finish[1],
        )  # fmt: skip

    def _finish(self, prompt: list[int], ids: list[int], params: FakeParams) -> tuple[str, int | str | None] | None:
        if ids[-1] in params.stop_token_ids:
            return "stop", ids[-1]
        text = self._backbone.tokenizer.decode(ids)
        if found := [stop for stop in params.stop if stop in text]:
            assert params.detokenize
            return "stop", found[0]
        if len(ids) >= params.max_tokens or len(prompt) + len(ids) >= self._context:
            return "length", None
        return None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    """The stand-in, found where vLLM would be."""
    module = ModuleType("vllm")
    kind = type("LLM", (FakeLLM,), {"made": [], "calls": []})
    vars(module).update(LLM=kind, SamplingParams=FakeParams, TokensPrompt=dict)
    monkeypatch.setitem(sys.modules, "vllm", module)
    return kind


def requests(n: int, prompts: Sequence[str] = PROMPTS) -> list[Request]:
    return [Request(problem_id=prompt, prompt=prompt, sample_idxs=tuple(range(n))) for prompt in prompts]


def draw_all(engine: VLLMEngine | HFEngine, asked: Sequence[Request], params: SamplingParams = PARAMS):
    return {(item.problem_id, item.sample_idx): item for item in engine.sample(asked, params=params)}


def test_the_most_likely_tokens_are_those_of_the_hf_engine(save_tiny: SaveTiny, fake: type[FakeLLM]):
    model = str(save_tiny())
    for params in (
        replace(PARAMS, temperature=0.0),
        replace(PARAMS, temperature=0.0, stop=("e",)),
        replace(PARAMS, temperature=0.0, max_new_tokens=100),  # the context holds 64
    ):
        ours = draw_all(VLLMEngine(model=model), requests(1), params)
        assert ours == draw_all(HFEngine(model=model), requests(1), params)


@pytest.mark.parametrize(("head", "is_the_readers"), [("torch.float32", True), ("torch.bfloat16", False)])
def test_log_probabilities_of_16_bits_are_the_readers_where_logits_are_not_rounded(
    save_tiny: SaveTiny, fake: type[FakeLLM], head: str, is_the_readers: bool
):
    fake.dtype, fake.head_dtype = "torch.bfloat16", head
    model = str(save_tiny())
    params = replace(PARAMS, logprobs=True, max_new_tokens=2)
    keys = {
        next(engine.sample(requests(1)[:1], params=params)).logprobs_of
        for engine in (VLLMEngine(model=model), HFEngine(model=model, dtype="bfloat16"))
    }
    assert len(keys) == (1 if is_the_readers else 2)
    assert fake.made[0]["hf_overrides"] == {"head_dtype": "float32"}


@pytest.mark.parametrize(
    "given", [{"quantization": "fp8"}, {"options": {"hf_overrides": {"x": 1}}}], ids=["quantised", "own overrides"]
)
def test_the_heads_precision_is_left_alone_where_it_may_not_be_ours(save_tiny: SaveTiny, fake: type[FakeLLM], given):
    draw_all(VLLMEngine(model=str(save_tiny()), **given), requests(1))
    assert fake.made[0].get("hf_overrides", {}) == given.get("options", {}).get("hf_overrides", {})


def test_every_sample_comes_once_and_depends_on_its_prompt_index_and_seed_alone(
    save_tiny: SaveTiny, fake: type[FakeLLM]
):
    engine = VLLMEngine(model=str(save_tiny()), samples_per_call=4)
    whole = draw_all(engine, requests(3))
    assert len(whole) == 9
    assert fake.calls == [4, 4, 1]
    assert len({sampled.token_ids for sampled in whole.values()}) > 6
    half = [replace(request, done=frozenset({0, 2})) for request in requests(3)]
    assert draw_all(engine, half) == {key: sampled for key, sampled in whole.items() if key[1] == 1}
    assert draw_all(engine, requests(1, PROMPTS[1:2])) == {key: whole[key] for key in [(PROMPTS[1], 0)]}
    other = draw_all(engine, requests(3), replace(PARAMS, seed=4))
    assert {key: sampled.token_ids for key, sampled in other.items()} != {k: v.token_ids for k, v in whole.items()}
    assert len(fake.made) == 1


def test_reasons_texts_and_log_probabilities_come_as_other_engines_give_them(save_tiny: SaveTiny, fake: type[FakeLLM]):
    model = str(save_tiny())
    found = draw_all(VLLMEngine(model=model), requests(24), replace(PARAMS, stop=("ab",), logprobs=True)).values()
    assert {sampled.stop_reason for sampled in found} >= {"end", "length"}
    tokenizer = load_backbone(model).tokenizer
    for sampled in found:
        assert sampled.token_ids is not None
        assert sampled.token_logprobs is not None
        assert len(sampled.token_ids) == len(sampled.token_logprobs) == sampled.n_generated_tokens
        assert max(sampled.token_logprobs) <= 0
        whole = tokenizer.decode(sampled.token_ids)
        assert sampled.text == {"end": whole.removesuffix("</s>"), "stop": whole[:-2]}.get(sampled.stop_reason, whole)
    plain = draw_all(VLLMEngine(model=model), requests(1)).values()
    assert all(sampled.token_logprobs is None for sampled in plain)


def test_samples_go_on_from_a_beginning_as_those_of_the_hf_engine(save_tiny: SaveTiny, fake: type[FakeLLM]):
    model, params = str(save_tiny()), replace(PARAMS, temperature=0.0)
    asked = [replace(requests(1)[0], prefix=prefix, problem_id=prefix) for prefix in ("a.\n", "a. ", "")]
    ours = draw_all(VLLMEngine(model=model), asked, params)
    assert ours == draw_all(HFEngine(model=model), asked, params)
    assert ours["a.\n", 0].text.startswith("a.\n")
    drawn = draw_all(VLLMEngine(model=model), [replace(item, sample_idxs=(0, 1)) for item in asked])
    assert len({sampled.token_ids for sampled in drawn.values()}) == 6


@pytest.mark.parametrize("reason", ["abort", "error", "repetition"])
def test_a_sample_that_vllm_gave_up_is_an_error(save_tiny: SaveTiny, fake, monkeypatch, reason: str):
    monkeypatch.setattr(fake, "_finish", lambda *_: (reason, None))
    with pytest.raises(ModelError, match=f"problem 'ab', sample 0: vLLM gave it up \\({reason}\\)"):
        draw_all(VLLMEngine(model=str(save_tiny())), requests(1))


def test_a_model_that_vllm_refuses_and_a_prompt_without_room_are_named(save_tiny: SaveTiny, fake, monkeypatch):
    model = str(save_tiny())
    with pytest.raises(ModelError, match=r"problem 'ab': its prompt has \d+ tokens, .* holds 3"):
        draw_all(VLLMEngine(model=model, max_model_len=3), requests(1))

    def refuse(self: FakeLLM, **arguments: Any) -> None:
        raise RuntimeError("no GPU")

    monkeypatch.setattr(fake, "__init__", refuse)
    with pytest.raises(ModelError, match=r"vLLM cannot load it \(RuntimeError: no GPU\)"):
        draw_all(VLLMEngine(model=model), requests(1))


def test_without_vllm_the_extra_is_named(save_tiny: SaveTiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    engine = VLLMEngine(model=str(save_tiny()))
    with pytest.raises(MissingExtraError, match=r"pip install 'freeprm\[vllm\]'"):
        draw_all(engine, requests(1))
    assert len(engine.identity()["weights_sha256"]) == 64  # what the manifest needs, it says without vLLM
    assert engine.shape() == HFEngine(model=engine.model).shape()


def test_options_that_make_no_sense_are_refused():
    assert load("engines", "vllm") is VLLMEngine
    with pytest.raises(ConfigError, match="samples_per_call: is 0"):
        VLLMEngine(model="m", samples_per_call=0)


@pytest.fixture
def source() -> Path:
    """The folder of vLLM's package, which is not imported: that takes a GPU."""
    if given := os.environ.get("FREEPRM_VLLM_SOURCE"):
        return Path(given)
    spec = PathFinder.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed; set FREEPRM_VLLM_SOURCE to its unpacked package")
    return Path(spec.origin).parent


def names_in(file: Path, kind: str, function: str | None = None) -> set[str]:
    """Annotated fields of a class, or arguments of its method, as its source has them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (found,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == kind)
    if function is None:
        return {node.target.id for node in found.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    (method,) = (node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == function)
    return {argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)}


def test_what_the_engine_tells_vllm_and_reads_from_it_is_in_vllms_source(
    save_tiny: SaveTiny, fake: type[FakeLLM], source: Path
):
    draw_all(VLLMEngine(model=str(save_tiny())), requests(1))
    (arguments,) = fake.made
    known = names_in(source / "entrypoints" / "llm.py", "LLM", "__init__")
    assert set(arguments) <= known | names_in(source / "engine" / "arg_utils.py", "EngineArgs")
    params = names_in(source / "sampling_params.py", "SamplingParams")
    assert {item.name for item in fields(FakeParams)} <= params
    assert {"prompts", "sampling_params", "use_tqdm"} <= names_in(source / "entrypoints" / "llm.py", "LLM", "generate")
    outputs = names_in(source / "outputs.py", "CompletionOutput")
    assert {"token_ids", "logprobs", "finish_reason", "stop_reason"} <= outputs
    assert "outputs" in names_in(source / "outputs.py", "RequestOutput", "__init__")
    assert "logprob" in names_in(source / "logprobs.py", "Logprob")
    assert "prompt_token_ids" in names_in(source / "inputs" / "llm.py", "TokensPrompt")
    assert {"max_model_len", "dtype"} <= names_in(source / "config" / "model.py", "ModelConfig")
    assert "    def head_dtype(self)" in (source / "config" / "model.py").read_text(encoding="utf-8")
    package = (source / "__init__.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in package for name in ("LLM", "SamplingParams", "TokensPrompt"))
    reasons = (source / "v1" / "engine" / "__init__.py").read_text(encoding="utf-8")
    assert 'FINISH_REASON_STRINGS = ("stop", "length", ' in reasons
