"""Work: tokens and FLOPs, by hand."""

import numpy as np
import pytest
from transformers import LlamaConfig

from freeprm.measurement.work import Work, different
from freeprm.models.encoding import Encoded

CONFIG = LlamaConfig(
    vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)
LAYER = 4 * 4 * 4 + 3 * 4 * 6  # attention's four matrices, the MLP's three
HEAD = 4 * 10


def encoded(prompt, response):
    ids = np.array([*prompt, *response], dtype=np.int32)
    return Encoded(name="x", ids=ids, n_prompt=len(prompt), offsets=np.zeros((len(response), 2), dtype=np.int32))


def test_a_prompt_counts_once_among_unique_tokens_and_with_each_response_among_naive_ones():
    work = Work.of([encoded([1, 2], [3]), encoded([1, 2], [4, 5]), encoded([9], [3])], CONFIG)
    assert work.naive_tokens == 3 + 4 + 2
    assert work.unique_tokens == (2 + 1) + (1 + 2 + 1)  # two different prompts, three responses
    assert work.response_tokens == 4


def test_flops_are_two_a_weight_and_token_and_attention_over_each_context():
    work = Work.of([encoded([1, 2], [3]), encoded([1, 2], [4])], CONFIG)
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
