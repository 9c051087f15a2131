"""Random models and rollouts to measure with; work in tokens and FLOPs, by hand."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from benchmarks.workloads import (
    SIZES,
    Work,
    Workload,
    different,
    named_folder,
    random_groups,
    random_model,
    word_tokenizer,
)
from freeprm.models.encoding import Encoded, encode

WORK = Workload(size="0.9M", vocabulary=500, prompts=2, n=8, prompt_tokens=12, response_tokens=90)
CONFIG = LlamaConfig(
    vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)
LAYER = 4 * 4 * 4 + 3 * 4 * 6  # attention's four matrices, the MLP's three
HEAD = 4 * 10


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


def test_a_workload_gives_its_model_tokenizer_and_groups():
    assert torch.equal(WORK.model().lm_head.weight, random_model(WORK).lm_head.weight)
    assert WORK.weights_mib == pytest.approx(4 * random_model(WORK).num_parameters() / 2**20)
    assert WORK.groups() == random_groups(WORK)
    assert len(WORK.tokenizer()) == 500


def test_a_folder_is_named_by_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("A_FOLDER", str(tmp_path))
    assert named_folder("A_FOLDER") == tmp_path
    monkeypatch.setenv("A_FOLDER", str(tmp_path / "absent"))
    assert named_folder("A_FOLDER") is None
    monkeypatch.delenv("A_FOLDER")
    assert named_folder("A_FOLDER") is None


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


def item(prompt, response):
    ids = np.array([*prompt, *response], dtype=np.int32)
    return Encoded(name="x", ids=ids, n_prompt=len(prompt), offsets=np.zeros((len(response), 2), dtype=np.int32))


def test_a_prompt_counts_once_among_unique_tokens_and_with_each_response_among_naive_ones():
    work = Work.of([item([1, 2], [3]), item([1, 2], [4, 5]), item([9], [3])], CONFIG)
    assert work.naive_tokens == 3 + 4 + 2
    assert work.unique_tokens == (2 + 1) + (1 + 2 + 1)  # two different prompts, three responses
    assert work.response_tokens == 4


def test_flops_are_two_a_weight_and_token_and_attention_over_each_context():
    work = Work.of([item([1, 2], [3]), item([1, 2], [4])], CONFIG)
    a_context = 4 * 1 * 4  # 4 L d
    # Two sequences of contexts 1, 2, 3; once shared, contexts 1 and 2 are met once, 3 twice.
    assert work.naive_flops == 2 * (LAYER + HEAD) * 6 + a_context * 12
    assert work.unique_flops == 2 * LAYER * 4 + 2 * HEAD * 2 + a_context * (3 + 6)
    assert work.naive_flops_a_token == 2 * (LAYER + HEAD)


def test_the_largest_difference_is_over_all_tokens():
    assert different([[0.0, 1.0], [2.0]], [[0.0, 1.5], [1.75]]) == pytest.approx(0.5)


def test_another_number_of_responses_is_refused():
    with pytest.raises(ValueError, match="zip"):
        different([[0.0]], [[0.0], [1.0]])
