"""Padded rows: the way for models that read no packed ones.

Batches that do not fit are halved; numbers that are none are found.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from freeprm.errors import ConfigError
from freeprm.models.batching import (
    CPU_BUDGET,
    budget,
    budget_within,
    first_not_finite,
    in_batches,
    padded_batches,
    padded_logprobs,
    token_bytes,
)
from freeprm.models.encoding import Encoded, encode
from freeprm.models.logprobs import token_logprobs
from rounding import assert_near


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return encode(tiny.tokenizer(), tiny.rollouts(3))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_padded_and_packed_rows_say_the_same(architecture, encoded):
    plain, taught = tiny.language_model(architecture), tiny.language_model(architecture)
    assert_near(padded_logprobs(plain, encoded), token_logprobs(taught, encoded))


def test_a_model_that_ignores_what_logits_to_keep_gives_the_same(encoded):
    class Keeper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny.language_model()

        def forward(self, *, input_ids, use_cache, logits_to_keep):
            return self.inner(input_ids=input_ids)

    keeper = Keeper()
    assert_near(padded_logprobs(keeper, encoded), padded_logprobs(keeper.inner, encoded))


def test_batches_hold_every_response_once_within_the_budget(encoded):
    found = list(padded_batches(encoded, token_budget=200))
    assert sorted(row for batch in found for row in batch) == list(range(len(encoded)))
    assert all(len(batch) * max(len(encoded[row].ids) for row in batch) <= 200 for batch in found)
    assert len(encoded[found[0][0]].ids) == max(len(item.ids) for item in encoded)


def test_a_response_above_the_budget_is_a_batch_of_its_own(encoded):
    assert all(len(batch) == 1 for batch in padded_batches(encoded, token_budget=1))


def test_a_batch_that_does_not_fit_is_halved_and_later_ones_are_no_larger(capsys):
    read, told = [], []

    def scarce(rows: Sequence[int]) -> tuple[list[torch.Tensor], int]:
        read.append(list(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [torch.tensor([float(row)]) for row in rows], 10 * len(rows)

    batches = [[4, 3, 2, 1, 0], [5, 6], [7, 8, 9, 10]]
    found = in_batches(batches, scarce, lengths=[10] * 11, advance=lambda *done: told.append(done))
    assert {row: numbers.item() for row, numbers in found.items()} == {row: row for row in range(11)}
    assert read == [[4, 3, 2, 1, 0], [4, 3], [2], [1, 0], [5, 6], [7, 8], [9, 10]]  # 25 tokens from the first on
    assert told == [(20, 2), (10, 1), (20, 2), (20, 2), (20, 2), (20, 2)]
    assert capsys.readouterr().err == "out of memory with 50 tokens at a time: going on with 25 (--token-budget)\n"


def test_a_single_row_that_does_not_fit_is_an_error():
    def full(rows: Sequence[int]) -> tuple[list[torch.Tensor], int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_batches([[0, 1]], full, lengths=[3, 3], advance=lambda n_tokens, n_rows: None)


def test_what_is_no_number_is_found_in_its_row():
    numbers = torch.tensor([1.0, 2.0, 3.0, -torch.inf, torch.nan])
    bad = first_not_finite(numbers, [2, 0, 3])
    assert bad is not None
    assert (bad.row, bad.place, bad.value) == (2, 1, -torch.inf)
    assert first_not_finite(numbers[:3], [2, 0, 1]) is None
    assert first_not_finite(torch.empty(0), []) is None


def test_a_processor_has_a_budget_of_its_own():
    assert budget(tiny.language_model()) == CPU_BUDGET


def test_a_token_of_a_large_vocabulary_takes_what_its_logits_take():
    llama = LlamaConfig(hidden_size=4096, intermediate_size=14_336, vocab_size=128_256)
    assert token_bytes(llama, itemsize=2, padded_logits=False) == 2 * (4 * 4096 + 3 * 14_336) == 118_784
    assert token_bytes(llama, itemsize=2, padded_logits=True) == 118_784 + 8 * 128_256 == 1_144_832


@pytest.mark.parametrize(
    ("free", "packed", "n_tokens"),
    [
        (2 * 10_000 * 1_144_832, False, 10_000),
        (2 * 20_000 * 118_784 + 8 * 523 * 128_256, True, 20_000),  # a block has 2^28 / (4 x 128,256) = 523 rows
        (10**13, True, 131_072),
        (1, False, 1),
    ],
)
def test_the_budget_of_a_gpu_counts_the_vocabulary(free, packed, n_tokens, monkeypatch):
    class OnGPU(nn.Module):
        config = LlamaConfig(hidden_size=4096, intermediate_size=14_336, vocab_size=128_256)

        def parameters(self, recurse: bool = True):
            yield SimpleNamespace(device=SimpleNamespace(type="cuda"), dtype=torch.bfloat16)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**13))
    assert budget(OnGPU(), packed=packed) == n_tokens


SMALL = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 10}


@pytest.mark.parametrize(
    ("left", "packed", "reads_logits", "n_tokens"),
    [
        # Of 4 (4 x 4 + 3 x 8) = 160 bytes a token, and as much again; padded, with 8 x 10 of logits.
        (7 * 2 * 240 + 1, False, True, 7),
        (7 * 2 * 160 + 1, False, False, 7),
        # Packed, a block of logits of all rows, at most of 1,024: 80 bytes a row.
        (7 * (2 * 160 + 80) + 1, True, True, 7),
        (5000 * 2 * 160 + 1024 * 80, True, True, 5000),
    ],
)
def test_a_batch_takes_what_the_models_leave_of_the_memory(left, packed, reads_logits, n_tokens):
    one, other = LlamaForCausalLM(LlamaConfig(**SMALL)), LlamaForCausalLM(LlamaConfig(**SMALL))
    how = {"packed": packed, "reads_logits": reads_logits}
    weights = 4 * 420  # two layers of 64 of attention, 96 of the MLP, 8 of norms; 40 at each end, and the last norm
    assert budget_within(weights + left, [one], **how) == n_tokens
    assert budget_within(weights + left, [one, one], **how) == n_tokens  # the same once
    assert budget_within(2 * weights + left, [one, other], **how) == n_tokens


def test_models_that_take_all_the_memory_leave_no_batch():
    model = tiny.language_model()
    with pytest.raises(ConfigError, match=r"max_memory: is 9.54e-07 GiB, but its models take .* nothing is left"):
        budget_within(1024, [model], packed=True, reads_logits=True)
