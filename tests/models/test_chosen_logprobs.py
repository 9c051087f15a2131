import pytest
import torch
from torch import nn

import freeprm.models.output_head as module
from freeprm.models.output_head import Readout, chosen_logprobs

N, WIDTH, VOCABULARY = 7, 5, 11


def by_definition(hidden: torch.Tensor, ids: torch.Tensor, readout: Readout) -> torch.Tensor:
    logits = readout.scale * readout.head(hidden)
    if readout.cap is not None:
        logits = readout.cap * torch.tanh(logits / readout.cap)
    return logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    torch.manual_seed(0)
    hidden = torch.randn(N, WIDTH, dtype=dtype, requires_grad=True)
    return hidden, torch.randint(VOCABULARY, (N,)), nn.Linear(WIDTH, VOCABULARY).to(dtype)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "_CPU_ROWS", 3)
    monkeypatch.setattr(module, "_CPU_VOCABULARY", 4)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("cap", [None, 1.5])
def test_values_and_gradients_are_those_of_the_definition(scale, cap):
    hidden, ids, head = inputs()
    weights = torch.randn(N, dtype=torch.float64)
    found = []
    for function in (chosen_logprobs, by_definition):
        hidden.grad = None
        head.zero_grad()
        logprobs = function(hidden, ids, Readout(head, scale=scale, cap=cap))
        (logprobs * weights).sum().backward()
        found.append((logprobs.detach(), hidden.grad.clone(), head.weight.grad.clone(), head.bias.grad.clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_pass_the_numerical_check():
    hidden, ids, head = inputs()

    def of(hidden, weight, bias):
        return module._ChosenLogProbs.apply(hidden, ids, weight, bias, torch.float64, 0.5, 2.0)

    assert torch.autograd.gradcheck(of, (hidden, head.weight, head.bias))


def test_a_frozen_head_without_bias_gives_gradients_to_the_hidden_states_alone():
    hidden, ids, head = inputs()
    frozen = nn.Linear(WIDTH, VOCABULARY, bias=False).double().requires_grad_(False)
    chosen_logprobs(hidden, ids, Readout(frozen)).sum().backward()
    assert hidden.grad is not None
    assert frozen.weight.grad is None
    assert head.weight.grad is None


def test_half_precision_gives_float32_and_gradients_in_its_own():
    hidden, ids, head = inputs(torch.bfloat16)
    logprobs = chosen_logprobs(hidden, ids, Readout(head))
    assert logprobs.dtype == torch.float32
    logprobs.sum().backward()
    assert hidden.grad.dtype == head.weight.grad.dtype == torch.bfloat16
    reference = hidden.detach().float().requires_grad_()
    wide = nn.Linear(WIDTH, VOCABULARY)
    wide.load_state_dict({name: value.float() for name, value in head.state_dict().items()})
    by_definition(reference, ids, Readout(wide)).sum().backward()
    torch.testing.assert_close(hidden.grad.float(), reference.grad, atol=0.03, rtol=0.03)
    torch.testing.assert_close(head.weight.grad.float(), wide.weight.grad, atol=0.05, rtol=0.03)


def test_autocast_computes_in_its_own_precision_and_trains_the_float32_weights():
    hidden, ids, head = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logprobs = chosen_logprobs(hidden, ids, Readout(head))
    logprobs.sum().backward()
    plain = by_definition(hidden, ids, Readout(head))
    assert logprobs.dtype == torch.float32
    assert 0 < (logprobs - plain).abs().max() < 0.05
    assert head.weight.grad.dtype == torch.float32


def test_gradients_under_autocast_are_not_rounded_to_its_precision():
    hidden, ids, head = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        chosen_logprobs(hidden, ids, Readout(head)).sum().backward()
    for gradient in (hidden.grad, head.weight.grad, head.bias.grad):
        assert not torch.equal(gradient, gradient.bfloat16().float())


def test_nothing_gives_nothing():
    hidden, _, head = inputs()
    assert chosen_logprobs(hidden[:0], torch.zeros(0, dtype=torch.long), Readout(head)).shape == (0,)
