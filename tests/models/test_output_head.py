"""Logits that are not rounded to 16 bits, whoever makes them."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

import tiny
from freeprm.engines.base import Request, SamplingParams
from freeprm.engines.hf import HFEngine
from freeprm.engines.hf.writing import Writer
from freeprm.models.batching import padded_logprobs
from freeprm.models.encoding import encode
from freeprm.models.incremental import IncrementalReader, Piece, ReadPrompt
from freeprm.models.output_head import Readout, chosen_logprobs, give_float32_logits, product
from freeprm.models.packed_forward import readout_of

HALVES = (torch.bfloat16, torch.float16)
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "tied": tiny.ARCHITECTURES["llama tied"],
    "capped": tiny.ARCHITECTURES["gemma2"],
    "biased": tiny.MORE["phi"],
    "multiplied": lambda: CohereForCausalLM(CohereConfig(**tiny.sizes(logit_scale=0.5))),
    "divided": lambda: GraniteForCausalLM(GraniteConfig(**tiny.sizes(logits_scaling=4.0))),
}


def by_definition(hidden: Tensor, readout: Readout) -> Tensor:
    """Logits in float64 of operands as they are."""
    head, scale, cap = readout
    logits = hidden.double() @ head.weight.double().t()
    logits = scale * (logits if head.bias is None else logits + head.bias.double())
    return logits if cap is None else cap * torch.tanh(logits / cap)


def bound(hidden: Tensor, readout: Readout) -> Tensor:
    """What logits may be off by: a sum is rounded to 24 bits at each of its terms' sizes, and may come in two parts of
    eight bits each, 2^-17 of it; bias, scale and cap add a rounding each, and none of them makes an error larger."""
    sizes = hidden.abs().double() @ readout.head.weight.abs().double().t()
    return readout.scale * sizes * (2**-17 + hidden.shape[-1] * 2**-24) + 4 * 2**-24 * 64


@contextmanager
def watched(head: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Hidden states that went into a head, and what came out."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = head.register_forward_hook(lambda module, given, output: seen.append((given[0].detach(), output.detach())))
    yield seen
    handle.remove()


@pytest.mark.parametrize("tiles", [None, False], ids=["as here", "operands made float32"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_product_of_16_bits_is_as_exact_as_two_roundings_to_eight_bits_of_what_is_left(dtype, tiles, monkeypatch):
    if tiles is not None:
        monkeypatch.setattr("freeprm.models.output_head._multiplies_tiles", lambda operand: tiles)
    torch.manual_seed(0)
    for n, d, m in ((1, 1, 1), (3, 5, 11), (17, 33, 300), (64, 576, 40)):
        left, right = torch.randn(n, d).to(dtype), torch.randn(d, m).to(dtype)
        found = product(left, right, out=torch.empty(n, m))
        error = (found - left.double() @ right.double()).abs()
        assert (error <= (2**-17 + d * 2**-24) * (left.abs().double() @ right.abs().double())).all()


def test_a_logit_between_two_numbers_of_bfloat16_stays_there():
    # 16 x 1 + 1 x 2^-7: from 16 on, bfloat16 goes in steps of an eighth.
    left, right = torch.tensor([[16.0, 1.0]]).bfloat16(), torch.tensor([[1.0], [0.0078125]]).bfloat16()
    assert product(left, right, out=torch.empty(1, 1)).item() == 16.0078125


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_models_own_forward_gives_logits_that_are_not_rounded(kind, dtype):
    torch.manual_seed(0)
    model = MODELS[kind]().eval().to(dtype)
    give_float32_logits(model)
    readout = readout_of(model)
    with torch.inference_mode(), watched(readout.head) as seen:
        logits = model(input_ids=torch.arange(20)[None]).logits[0]
    hidden = seen[0][0][0]
    error = (logits - by_definition(hidden, readout)).abs()
    assert logits.dtype == torch.float32
    assert (error <= bound(hidden, readout)).all()
    assert (logits - logits.to(dtype)).abs().max() > error.max()  # what rounding would have done


@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_are_those_of_logits_that_are_not_rounded(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().bfloat16()
    readout, ids = readout_of(model), torch.arange(50)
    hidden = 3 * torch.randn(50, readout.head.in_features).bfloat16()
    with torch.no_grad():
        found = chosen_logprobs(hidden, ids, readout)
        exact = by_definition(hidden, readout).log_softmax(-1).gather(1, ids[:, None])[:, 0]
        # A log-softmax is off by twice the largest error of its logits, and by its own sum over 300 words in float32.
        assert ((found - exact).abs() <= 2 * bound(hidden, readout).amax(1) + 300 * 2**-24).all()


def test_under_autocast_operands_are_rounded_and_logits_are_not():
    torch.manual_seed(0)
    model = tiny.language_model()
    give_float32_logits(model)
    head, ids = model.lm_head, torch.arange(20)
    hidden = torch.randn(20, head.in_features, requires_grad=True)
    rounded = Readout(copy.deepcopy(head).bfloat16())
    expected = by_definition(hidden.detach().bfloat16(), rounded)
    with torch.autocast("cpu", torch.bfloat16):
        logits, logprobs = head(hidden), chosen_logprobs(hidden, ids, Readout(head))
    exact = bound(hidden.detach().bfloat16(), rounded)
    assert logits.dtype == torch.float32
    assert ((logits - expected).abs() <= exact).all()
    expected = expected.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    assert ((logprobs - expected).abs() <= 2 * exact.amax(1) + 300 * 2**-24).all()
    logits.sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad.dtype == hidden.grad.dtype == torch.float32


@pytest.mark.parametrize("context", [nullcontext(), torch.autocast("cpu", torch.bfloat16)], ids=["16 bits", "autocast"])
def test_gradients_are_those_of_the_definition_up_to_16_bits(context):
    torch.manual_seed(0)
    model = tiny.language_model("llama")
    give_float32_logits(model if isinstance(context, torch.autocast) else model.bfloat16())
    head = model.lm_head
    hidden = torch.randn(6, head.in_features).bfloat16().to(head.weight.dtype).requires_grad_()
    grad = torch.randn(6, 300).bfloat16().float()
    with context:
        logits = head(hidden)
    logits.backward(grad)
    weight = head.weight.detach().bfloat16().double()
    for found, left, right in (
        (hidden.grad, grad.double(), weight), (head.weight.grad, grad.double().t(), hidden.detach().double())
    ):  # fmt: skip
        assert ((found - left @ right).abs() <= 2**-8 * (left.abs() @ right.abs())).all()


def test_float32_models_are_read_as_ever():
    model = tiny.language_model()
    plain = copy.deepcopy(model)
    give_float32_logits(model)
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert model.double()(input_ids=ids).logits.dtype == torch.float64


def test_a_copy_answers_with_its_own_weights_and_an_adapter_adds_to_what_is_not_rounded():
    from peft import LoraConfig, get_peft_model

    model = tiny.language_model().bfloat16()
    give_float32_logits(model)
    other = copy.deepcopy(model)
    nn.init.zeros_(other.lm_head.weight)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        assert logits.any()
        assert not other(input_ids=ids).logits.any()
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"]))  # which adds nothing at first
        assert torch.equal(adapted(input_ids=ids).logits, logits)


def test_no_way_of_reading_or_drawing_rounds_its_logits(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)), dtype="bfloat16")
    backbone = engine._backbone
    (item,) = encode(tiny.tokenizer(), tiny.rollouts(1)[:1])
    params = SamplingParams(temperature=1.0, max_new_tokens=3, logprobs=True)
    request = Request(problem_id="0", prompt="the sum of 3 and 4?", sample_idxs=(0, 1))
    plain = tiny.language_model().bfloat16()  # of the user's own
    ways = {
        "padded": lambda: padded_logprobs(backbone.model, [item]),
        "drawn": lambda: list(engine.sample([request], params=params)),
        "drawn by pieces": lambda: (
            writer := Writer(backbone, params=params)
        ).write(writer.open(engine._encoded([request])[0]), lambda draft: False),
    }  # fmt: skip
    for name, read in ways.items():
        with watched(backbone.model.lm_head) as seen, torch.inference_mode():
            read()
        assert seen, name
        assert {output.dtype for _, output in seen} == {torch.float32}, name
    with watched(plain.lm_head) as seen:
        reader = IncrementalReader(plain, name="plain")
        reader.read([Piece(ReadPrompt(item.ids[: item.n_prompt]), item.ids, item.n_prompt, len(item.ids))])
    assert {output.dtype for _, output in seen} == {torch.float32}
