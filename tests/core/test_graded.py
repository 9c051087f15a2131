from dataclasses import replace

import pytest

from freeprm.core.balance import balance
from freeprm.core.graded import Size, size, trainable
from freeprm.core.preferences import pair
from freeprm.errors import DataError
from labelled import assert_adds_up, group, many_groups, members


def test_size_counts_problems_responses_and_pairs():
    # a: 2 right, 1 wrong -> 2 pairs; b: none; c: 1 and 1, the ungraded one gives no pair.
    assert size([group("a", "++-"), group("b", "++"), group("c", "+-?")]) == Size(problems=3, responses=8, pairs=3)


def test_trainable_drops_and_counts_ungraded_and_empty_responses():
    blank = group("c", "+-", truncated=True)
    blank = replace(blank, rollouts=(replace(blank.rollouts[0], response=" \n"), blank.rollouts[1]))
    kept = trainable([group("a", "+-?"), group("b", "??"), blank], needs_pairs=False)
    assert members(kept.groups) == {("a", 0), ("a", 1), ("c", 1)}
    assert kept.dropped == {"ungraded responses": 3, "empty responses": 1, "groups without a usable response": 1}


def test_trainable_for_pairs_drops_and_counts_groups_of_one_class():
    kept = trainable([group("a", "+-"), group("b", "++"), group("c", "-?"), group("d", "?")], needs_pairs=True)
    assert [each.problem_id for each in kept.groups] == ["a"]
    assert kept.dropped == {
        "ungraded responses": 2,
        "groups without a usable response": 1,
        "groups without a wrong response": 1,
        "responses in groups without a wrong response": 2,
        "groups without a right response": 1,
        "responses in groups without a right response": 1,
    }


@pytest.mark.parametrize("needs_pairs", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_trainable_and_what_is_not_add_up(seed, needs_pairs):
    groups = many_groups(seed)
    kept = trainable(groups, needs_pairs=needs_pairs)
    assert_adds_up(size(groups), size(kept.groups), kept.dropped)
    assert size(kept.groups).pairs == size(groups).pairs


@pytest.mark.parametrize(
    "use",
    [
        lambda groups: trainable(groups, needs_pairs=False),
        lambda groups: balance(groups, how="dataset"),
        lambda groups: pair(groups),
    ],
)
@pytest.mark.parametrize("labels", ["++", "-?", "?"])
def test_data_with_one_class_is_refused_with_its_counts(use, labels):
    counts = f"{labels.count('+')} right and {labels.count('-')} wrong among {len(labels)} responses in 1 groups"
    expected = rf"{counts} \({labels.count('?')} ungraded or empty\)"
    with pytest.raises(DataError, match=expected):
        use([group("a", labels)])


def test_data_without_a_single_pair_is_refused_for_objectives_that_need_pairs():
    groups = [group("a", "++"), group("b", "--")]
    assert trainable(groups, needs_pairs=False).groups == groups
    with pytest.raises(DataError, match="none of 2 groups has both"):
        trainable(groups, needs_pairs=True)
