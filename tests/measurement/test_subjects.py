"""Random models and rollouts to measure with."""

import pytest
import torch

from freeprm.measurement.subjects import SIZES, Workload, random_groups, random_model, word_tokenizer
from freeprm.models.encoding import encode

WORK = Workload(size="0.9M", vocabulary=500, prompts=2, n=8, prompt_tokens=12, response_tokens=90)


def test_a_size_has_the_parameters_that_its_name_says():
    # Layers of 0.9M: q and o 2 * 128 * 128, k and v 2 * 128 * 64, MLP 3 * 128 * 384, norms 2 * 128; four of them.
    layers = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384 + 2 * 128)
    assert random_model(WORK).num_parameters() == layers + 128 + 500 * 128
    shape = SIZES["8B"]
    assert (shape.hidden, shape.layers, shape.ffn) == (4096, 32, 14336)


def test_a_model_is_the_same_for_the_same_seed_and_has_the_dtype():
    one, two = random_model(WORK), random_model(WORK)
    assert torch.equal(one.lm_head.weight, two.lm_head.weight)
    assert random_model(Workload(size="0.9M", vocabulary=500, n=1, prompt_tokens=1, dtype="bfloat16")).dtype == (
        torch.bfloat16
    )
    assert torch.get_default_dtype() == torch.float32


def test_rollouts_have_the_tokens_that_were_asked_for():
    rollouts = [rollout for group in random_groups(WORK) for rollout in group.rollouts]
    encoded = encode(word_tokenizer(WORK.vocabulary), rollouts)
    assert len(encoded) == 16
    assert {item.n_prompt for item in encoded} == {12}
    lengths = [item.n_response for item in encoded]
    # The mean of 16 draws with a standard deviation of 27 is within three of its own (27 / 4) of 90.
    assert sum(lengths) / 16 == pytest.approx(90, abs=21)
    assert len(set(lengths)) > 1


def test_responses_to_one_prompt_differ_and_both_classes_are_there():
    groups = random_groups(WORK)
    assert [len({rollout.response for rollout in group.rollouts}) for group in groups] == [8, 8]
    assert [sum(rollout.correct is True for rollout in group.rollouts) for group in groups] == [4, 4]
