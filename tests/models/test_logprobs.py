from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BloomConfig, BloomForCausalLM, PhiForCausalLM

import tiny
from freeprm.errors import NonFiniteError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.logprobs import distinct, n_read, score_tokens, token_logprobs
from freeprm.models.routes import prepare
from rounding import assert_near

ROLLOUTS = tiny.rollouts(3)
"""Twelve responses of unequal length to three prompts of unequal length."""
EVERYTHING = 10_000


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return encode(tiny.tokenizer(), ROLLOUTS)


def by_definition(model: nn.Module, item: Encoded) -> torch.Tensor:
    """log softmax of a plain forward pass of one row, in float64, gathered at the next tokens."""
    ids = torch.tensor(item.ids.tolist())[None]
    logps = model(input_ids=ids).logits[0].double().log_softmax(-1)  # (L, V)
    return logps[:-1].gather(1, ids[0, 1:, None])[:, 0][item.n_prompt - 1 :]


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *tiny.MORE])
def test_log_probabilities_are_those_of_the_definition(architecture, encoded):
    model = tiny.language_model(architecture)
    if isinstance(model, PhiForCausalLM):
        nn.init.normal_(model.lm_head.bias)  # starts at zero
    found = score_tokens(model, encoded, token_budget=200)
    for item, logps in zip(encoded, found, strict=True):
        assert logps.dtype == torch.float32
        assert_near(logps, by_definition(model, item))


def test_log_probabilities_are_those_of_the_definition_on_real_weights(stories):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(stories)
    some = encode(AutoTokenizer.from_pretrained(stories), ROLLOUTS[:3])
    for item, logps in zip(some, score_tokens(model, some, token_budget=EVERYTHING), strict=True):
        assert_near(logps, by_definition(model, item))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral, sliding window"])
def test_batch_size_order_and_padding_change_nothing(architecture, encoded):
    model = tiny.language_model(architecture)
    alone = score_tokens(model, encoded, token_budget=1)
    together = score_tokens(model, encoded, token_budget=EVERYTHING)
    backwards = score_tokens(model, encoded[::-1], token_budget=300)[::-1]
    for one, two, three in zip(alone, together, backwards, strict=True):
        assert_near(two, one)
        assert_near(three, one)


@pytest.mark.parametrize("architecture", ["llama tied", "gpt2"])
def test_gradients_do_not_depend_on_what_shares_a_batch(architecture, encoded):
    model = tiny.language_model(architecture)

    def gradients(parts: list[list[Encoded]]) -> list[torch.Tensor]:
        model.zero_grad()
        for part in parts:
            token_logprobs(model, part).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    together = gradients([encoded])
    alone = gradients([[item] for item in reversed(encoded)])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)  # sums of some hundred terms of order 1


def test_a_bfloat16_model_gives_float32(encoded):
    model = tiny.language_model().bfloat16()
    logps = token_logprobs(model, encoded[:2])
    assert logps.dtype == torch.float32
    exact = torch.cat([by_definition(model, item) for item in encoded[:2]])
    # Two batch shapes may round the logits differently, but the softmax adds no rounding of its own.
    assert (logps - exact).abs().max() < 0.1
    assert len(set(logps.tolist())) > len(set(logps.bfloat16().tolist()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
def test_in_16_bits_packed_rows_are_as_near_the_exact_ones_as_plain_rows(architecture, dtype, encoded):
    exact_model, model = tiny.language_model(architecture), tiny.language_model(architecture).to(dtype)
    exact = torch.cat([by_definition(exact_model, item) for item in encoded])
    plain = torch.cat([by_definition(model, item) for item in encoded])
    packed = torch.cat(score_tokens(model, encoded, token_budget=200))
    assert (packed - exact).abs().mean() < 1.2 * (plain - exact).abs().mean()


def test_a_float64_model_gives_float64(encoded):
    assert token_logprobs(tiny.language_model().double(), encoded[:1]).dtype == torch.float64


def test_not_a_number_is_refused_with_the_name_of_the_response(encoded):
    model = tiny.language_model()
    token = int(encoded[5].ids[-3])
    rare = [item for item in encoded if token in item.ids]
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = torch.nan
    with pytest.raises(NonFiniteError, match=r"problem 'p\d', sample \d: the log-probability of its token \d+ is nan"):
        score_tokens(model, rare, token_budget=EVERYTHING)


def test_what_is_given_twice_is_computed_once(encoded):
    again = [encoded[0], encoded[1], encoded[0], encoded[2], encoded[1]]
    unique, places = distinct(again)
    assert unique == encoded[:3]
    assert places == [0, 1, 0, 2, 1]
    model = tiny.language_model()
    told: list[tuple[int, int]] = []
    found = score_tokens(model, again, token_budget=EVERYTHING, advance=lambda *done: told.append(done))
    assert told == [(n_read(model, encoded[:3]), 3)]
    for item, logps in zip(again, found, strict=True):
        assert_near(logps, by_definition(model, item))


def test_the_same_tokens_behind_a_longer_prompt_are_something_else(encoded):
    shifted = replace(encoded[0], n_prompt=encoded[0].n_prompt + 1, offsets=encoded[0].offsets[1:])
    assert distinct([encoded[0], shifted])[1] == [0, 1]


def test_a_repetition_has_its_own_share_of_the_gradient(encoded):
    model = tiny.language_model()
    gradients = []
    for batch, weight in (([encoded[0], encoded[0]], 1.0), ([encoded[0]], 2.0)):
        model.zero_grad()
        (weight * token_logprobs(model, batch).sum()).backward()
        gradients.append(model.get_input_embeddings().weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_a_prompt_is_read_once_for_its_responses(encoded):
    ids = np.arange(100, dtype=np.int32)
    one, other = (replace(encoded[0], ids=np.append(ids, [end, 5]).astype(np.int32), n_prompt=100) for end in (1, 2))
    assert n_read(tiny.language_model(), [one, other]) == 104
    padded = BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=16, n_layer=1, n_head=2))
    assert n_read(padded, [one, other, one]) == 204


def test_progress_is_told_in_tokens_that_were_read(encoded):
    told: list[tuple[int, int]] = []
    score_tokens(tiny.language_model(), encoded, token_budget=1, advance=lambda *done: told.append(done))
    assert sorted(told) == sorted((len(item.ids), 1) for item in encoded)


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *tiny.MORE])
def test_every_architecture_here_reads_packed_rows(architecture):
    assert prepare(tiny.language_model(architecture))


def test_a_batch_that_does_not_fit_the_memory_is_halved(encoded, monkeypatch):
    model = tiny.language_model()
    expected = score_tokens(model, encoded)
    taught, asked = model.forward, []

    def scarce(**options):
        asked.append(options["input_ids"].numel())
        if asked[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return taught(**options)

    monkeypatch.setattr(model, "forward", scarce)
    for one, other in zip(score_tokens(model, encoded, token_budget=EVERYTHING), expected, strict=True):
        assert_near(one, other)
    assert max(asked) > 150
    with pytest.raises(torch.OutOfMemoryError):
        score_tokens(model, [replace(encoded[0], ids=np.tile(encoded[0].ids, 10))])


def test_nothing_gives_nothing():
    assert score_tokens(tiny.language_model(), [], token_budget=10) == []
