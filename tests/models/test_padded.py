"""Padded rows: the way for models that read no packed ones."""

import pytest
from torch import nn

import tiny
from freeprm.models.encoding import Encoded, encode
from freeprm.models.logprobs import token_logprobs
from freeprm.models.padded import divide, padded_logprobs
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
    found = list(divide(encoded, token_budget=200))
    assert sorted(row for batch in found for row in batch) == list(range(len(encoded)))
    assert all(len(batch) * max(len(encoded[row].ids) for row in batch) <= 200 for batch in found)
    assert len(encoded[found[0][0]].ids) == max(len(item.ids) for item in encoded)


def test_a_response_above_the_budget_is_a_batch_of_its_own(encoded):
    assert all(len(batch) == 1 for batch in divide(encoded, token_budget=1))
