from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import stepped
import tiny
from freeprm.models.encoding import encode
from freeprm.training.examples import Example, Examples, collate, mismatches
from freeprm.training.steps import StepReader, in_tokens
from freeprm.types import group_rollouts


def example(n_responses: int, *, problem: int = 0) -> Example:
    """The first responses to a problem of the toy task; reference log-probabilities count the tokens."""
    encoded = encode(tiny.tokenizer(), tiny.rollouts(problem + 1)[4 * problem :][:n_responses])
    return Example(
        encoded=tuple(encoded),
        labels=(True, False, True, False)[:n_responses],
        ref_logps=tuple(torch.arange(item.n_response, dtype=torch.float32) for item in encoded),
    )


def test_a_batch_lays_examples_side_by_side():
    one, two = example(2), example(3, problem=1)
    batch = collate([one, two])["batch"]
    assert batch.encoded == [*one.encoded, *two.encoded]
    assert batch.labels.tolist() == [True, False, True, False, True]
    assert batch.groups.tolist() == [0, 0, 1, 1, 1]
    lengths = [item.n_response for item in batch.encoded]
    assert torch.bincount(batch.rows).tolist() == lengths
    assert batch.ref_logps.tolist() == [float(t) for length in lengths for t in range(length)]
    assert batch.mismatched == []


def test_tokens_know_their_step_and_steps_are_counted_through(example_of_steps):
    one, two = example_of_steps(0), example_of_steps(1)
    batch = collate([one, two])["batch"]
    assert torch.bincount(batch.rows).tolist() == [item.n_response for item in batch.encoded]
    ends = [own.ends for part in (one, two) for own in part.steps]
    lengths = [int(n) for own in ends for n in np.diff(own, prepend=-1)]
    assert torch.bincount(batch.steps).tolist() == lengths
    assert batch.steps.tolist() == sorted(batch.steps.tolist())
    assert len(batch.step_labels) == len(lengths)


def test_places_stand_for_tokens_where_values_are_read(example_of_steps):
    one = example_of_steps(0)
    read = replace(one, ref_logps=(), places=tuple(own.ends for own in one.steps))
    batch = collate([read, read])["batch"]
    n_steps = [len(own.ends) for own in one.steps] * 2
    assert torch.bincount(batch.rows).tolist() == n_steps
    assert batch.steps.tolist() == list(range(sum(n_steps)))
    assert batch.places == [*read.places, *read.places]
    assert len(batch.ref_logps) == 0


@pytest.fixture
def example_of_steps():
    """An example of the toy task with steps."""

    def make(problem: int) -> Example:
        made = stepped.rollouts(problem + 1)[4 * problem :]
        reader = StepReader(splitter="auto", labels="hard")
        encoded = encode(tiny.tokenizer(), made)
        steps = [
            in_tokens(reader.in_text(rollout), item, rollout.response, Counter())
            for rollout, item in zip(made, encoded, strict=True)
        ]
        return replace(example(4, problem=problem), encoded=tuple(encoded), steps=tuple(steps))

    return make


def test_pairs_of_an_example_are_right_times_wrong():
    assert [example(n).n_pairs for n in (1, 2, 3, 4)] == [0, 1, 2, 4]


def test_an_example_is_as_long_as_its_longest_response():
    assert Examples([example(4)]).lengths() == [max(len(item.ids) for item in example(4).encoded)]


def test_each_response_has_one_to_another_prompt_beside_it():
    rollouts = tiny.rollouts(5)
    groups = group_rollouts(rollouts)
    drawn = mismatches(groups, seed=0)
    assert [(rollout.problem_id, rollout.prompt) for rollout in drawn] == [(r.problem_id, r.prompt) for r in rollouts]
    for rollout in drawn:
        assert rollout.correct is None
        assert any(rollout.response == r.response for r in rollouts if r.problem_id != rollout.problem_id)
    assert mismatches(groups, seed=0) == drawn
    assert mismatches(groups, seed=1) != drawn


def test_parts_of_one_divided_group_are_no_mismatch():
    group = group_rollouts(tiny.rollouts(1))[0]
    assert mismatches([group, group], seed=0) == []
