from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import stepped
import tiny
from freeprm.errors import DataError, ModelError
from freeprm.models.loading import load_backbone
from freeprm.models.logprobs import score_tokens
from freeprm.training.batches import Example
from freeprm.training.examples import GroupPreparer, mismatches
from freeprm.training.settings import TrainSettings
from freeprm.training.setup import set_up_training
from freeprm.types import Rollout, group_rollouts
from rounding import assert_near

ROLLOUTS = tiny.rollouts(3)


LONG = "~" * 2 * tiny.CONTEXT


def prepare(
    folder: Path, cache: Path, rollouts: list[Rollout] = ROLLOUTS, *, objective: str = "ce",
    mixed_precision: str = "no", **settings: object,
) -> tuple[list[Example], Counter[str], GroupPreparer]:  # fmt: skip
    setup = set_up_training(TrainSettings(model=str(folder), objective=objective, **settings))
    preparer = GroupPreparer(setup, cache, mixed_precision=mixed_precision)
    counts: Counter[str] = Counter()
    return preparer.examples(group_rollouts(rollouts), counts=counts), counts, preparer


def test_an_example_holds_its_groups_responses_with_the_references_log_probabilities(model_folder, tmp_path):
    examples, counts, preparer = prepare(model_folder, tmp_path)
    assert [len(example.encoded) for example in examples] == [4, 4, 4]
    assert counts == {"right responses": 6, "wrong responses": 6, "groups": 3}
    encoded = [item for example in examples for item in example.encoded]
    expected = score_tokens(load_backbone(str(model_folder)).model, encoded, token_budget=1)
    found = [logps for example in examples for logps in example.ref_logps]
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other)
    assert preparer.scored_tokens == sum(len(item.ids) for item in encoded)


def test_the_second_time_nothing_is_computed(model_folder, tmp_path):
    first, _, _ = prepare(model_folder, tmp_path)
    second, _, preparer = prepare(model_folder, tmp_path)
    assert preparer.scored_tokens == 0
    assert all(torch.equal(a, b) for one, two in zip(first, second, strict=True)
               for a, b in zip(one.ref_logps, two.ref_logps, strict=True))  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16", "trainer": {"optim": "stable_adamw"}},
        {"mixed_precision": "bf16"}, {"reference": "other"},
    ],
)  # fmt: skip
def test_another_precision_or_reference_is_computed_anew(model_folder, tmp_path, change):
    prepare(model_folder, tmp_path / "cache")
    if "reference" in change:
        change = {"reference": str(tiny.save(tmp_path / "other", seed=5))}
    assert prepare(model_folder, tmp_path / "cache", **change)[2].scored_tokens > 0


def test_without_reference_its_log_probabilities_are_zeros(model_folder, tmp_path):
    examples, _, preparer = prepare(model_folder, tmp_path, with_reference=False)
    assert not any(logps.any() for example in examples for logps in example.ref_logps)
    assert preparer.scored_tokens == 0
    assert not list(tmp_path.iterdir())


def test_a_reference_with_other_tokens_is_refused(model_folder, tmp_path, stories):
    with pytest.raises(ModelError, match="the tokenizers of policy and reference differ"):
        prepare(model_folder, tmp_path, reference=str(stories))


def test_long_responses_are_left_out_and_counted(model_folder, tmp_path):
    rollouts = [replace(ROLLOUTS[0], response=LONG), *ROLLOUTS[1:]]
    examples, counts, _ = prepare(model_folder, tmp_path, rollouts)
    assert [len(example.encoded) for example in examples] == [3, 4, 4]
    assert counts["excluded: longer than the context"] == 1


def test_a_group_that_the_context_leaves_with_one_class_gives_no_pairs_and_is_counted(model_folder, tmp_path):
    rollouts = [replace(r, response=LONG) if r.problem_id == "p1" and r.correct else r for r in ROLLOUTS]
    examples, counts, _ = prepare(model_folder, tmp_path, rollouts, objective="dpo")
    assert len(examples) == 2
    assert counts["groups that the context leaves with one class"] == 1


def test_responses_may_be_cut_to_fit(model_folder, tmp_path):
    rollouts = [replace(ROLLOUTS[0], response=LONG), *ROLLOUTS[1:]]
    examples, counts, _ = prepare(model_folder, tmp_path, rollouts, too_long="truncate", max_length=100)
    assert len(examples[0].encoded[0].ids) == 100
    assert counts["truncated to the context"] == 1


def test_data_of_which_only_one_class_fits_is_refused(model_folder, tmp_path):
    rollouts = [replace(rollout, response=LONG) if rollout.correct else rollout for rollout in ROLLOUTS]
    with pytest.raises(DataError, match="0 right and 6 wrong responses fit 128 tokens"):
        prepare(model_folder, tmp_path, rollouts)


def test_a_kl_needs_two_prompts(model_folder, tmp_path):
    examples, _, _ = prepare(model_folder, tmp_path, objective="kto")
    for example in examples:
        assert len(example.mismatched) == len(example.encoded)  # one a response
        assert [len(logps) for logps in example.mismatched_ref_logps] == [m.n_response for m in example.mismatched]
    with pytest.raises(DataError, match="expected at least two prompts"):
        prepare(model_folder, tmp_path, tiny.rollouts(1), objective="kto")


def test_values_need_no_reference_and_are_read_at_the_responses_last_token(model_folder, tmp_path):
    examples, _, preparer = prepare(model_folder, tmp_path, parameterisation="linear")
    assert preparer.reference is None
    assert preparer.scored_tokens == 0
    for example in examples:
        assert example.ref_logps == example.steps == ()
        assert [at.tolist() for at in example.places] == [[item.n_response - 1] for item in example.encoded]


def test_steps_that_values_are_read_at_are_read_at_their_last_tokens(model_folder, tmp_path):
    examples, counts, _ = prepare(
        model_folder, tmp_path, stepped.rollouts(3), objective="step_ce", parameterisation="tokens"
    )
    for example in examples:
        for item, at, steps in zip(example.encoded, example.places, example.steps, strict=True):
            assert at.tolist() == steps.ends.tolist()
            assert at[-1] == item.n_response - 1  # the end-of-turn token belongs to the last step
    labels = [label for rollout in stepped.rollouts(3) for label in rollout.extra["step_labels"]]
    assert counts["labelled steps"] == len(labels)
    assert sum(steps.labels.sum() for example in examples for steps in example.steps) == sum(labels)


def test_outcome_objectives_look_at_no_steps_even_where_values_are_read_at_them(model_folder, tmp_path):
    rollouts = stepped.with_columns(stepped.rollouts(2), step_labels=None)
    examples, _, _ = prepare(model_folder, tmp_path, rollouts, parameterisation="linear", read_at="steps")
    assert all(example.steps == () for example in examples)
    assert {len(at) for example in examples for at in example.places} == {1, 2, 3}


def test_a_response_whose_labels_the_context_cuts_off_is_counted(model_folder, tmp_path):
    far = replace(
        ROLLOUTS[0], response="~" * 100 + "\nnow\nyes", extra={"step_labels": [None, True, False]}
    )  # fmt: skip
    examples, counts, _ = prepare(
        model_folder, tmp_path, [far, *stepped.rollouts(3)[1:]], objective="step_kto", splitter="lines",
        too_long="truncate", max_length=100,
    )  # fmt: skip
    assert [len(example.encoded) for example in examples] == [3, 4, 4]
    assert counts["responses without a step label within the context"] == 1
    assert counts["step labels cut off by the context"] == 2


def test_step_labels_that_are_all_alike_are_refused(model_folder, tmp_path):
    rollouts = [replace(r, extra={"step_labels": [True] * len(r.extra["steps"])}) for r in stepped.rollouts(2)]
    with pytest.raises(DataError, match="step labels are 1; expected right steps and wrong ones"):
        prepare(model_folder, tmp_path, rollouts, objective="step_ce")


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
