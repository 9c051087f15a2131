from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.curation import balance
from freeprm.core.groups import PAIRINGS, Size, draw, order, pair, sample, size, trainable
from freeprm.errors import ConfigError, DataError
from freeprm.types import Group
from labelled import assert_adds_up, group, many_groups, members, shuffled


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


def key(item):
    return (item,)


def test_a_draw_depends_on_seed_purpose_and_key_and_on_nothing_else():
    drawn = {draw(seed, purpose, ("p", idx)) for seed in (0, 1) for purpose in ("a", "b") for idx in (0, 1)}
    assert len(drawn) == 8
    assert draw(1, "a", ("p", 0)) == draw(1, "a", ("p", 0))


def test_a_draw_is_the_same_in_every_release():
    # blake2b of b'[0, "responses", "p", 3]' with 16 bytes: what a data set of an earlier run was drawn with.
    import hashlib

    assert draw(0, "responses", ("p", 3)) == hashlib.blake2b(b'[0, "responses", "p", 3]', digest_size=16).digest()


def test_samples_are_nested_in_the_order_given_and_independent_of_it():
    items = list(range(50))
    few, more = (sample(items, count, key=key, seed=0, purpose="a") for count in (5, 20))
    assert set(few) < set(more)
    assert more == sorted(more)
    assert set(sample(items[::-1], 20, key=key, seed=0, purpose="a")) == set(more)
    assert sample(items, 60, key=key, seed=0, purpose="a") == items
    assert order(items, key=key, seed=0, purpose="a")[:5] == order(items[::-1], key=key, seed=0, purpose="a")[:5]


def test_samples_for_two_purposes_are_independent():
    # Half of 2,000 by one purpose, then half by another: 500 expected in both, standard deviation
    # sqrt(1000 * 1/4) * sqrt(1000/1999) = 11.2 (hypergeometric). Draws in common would give 0 or 1,000.
    items = list(range(2000))
    both = Counter(item for purpose in "ab" for item in sample(items, 1000, key=key, seed=0, purpose=purpose))
    assert abs(sum(count == 2 for count in both.values()) - 500) < 5 * 11.2


def indices(paired):
    return [(one.chosen.problem_id, one.chosen.sample_idx, one.rejected.sample_idx) for one in paired.pairs]


def used_by(paired):
    used = {(rollout.problem_id, rollout.sample_idx) for one in paired.pairs for rollout in one}
    return Size(problems=len({problem for problem, _ in used}), responses=len(used), pairs=len(paired.pairs))


def test_cartesian_pairs_are_all_right_with_all_wrong_of_a_group():
    paired = pair([group("a", "+-+-"), group("b", "++"), group("c", "-"), group("d", "?+-")])
    assert indices(paired) == [("a", 0, 1), ("a", 0, 3), ("a", 2, 1), ("a", 2, 3), ("d", 1, 2)]
    assert paired.dropped == {
        "groups without a wrong response": 1,
        "groups without a right response": 1,
        "responses without a counterpart": 3,  # b's two, c's one
        "ungraded responses": 1,
    }


@pytest.mark.parametrize("seed", range(5))
def test_one_to_one_pairs_each_right_response_with_a_distinct_wrong_one(seed):
    groups = many_groups(seed)
    paired = pair(groups, pairing="one_to_one", seed=seed)
    for each in groups:
        own = [one for one in paired.pairs if one.chosen.problem_id == each.problem_id]
        right = sum(rollout.correct is True for rollout in each.rollouts)
        wrong = sum(rollout.correct is False for rollout in each.rollouts)
        assert len(own) == min(right, wrong)
        assert len({one.chosen.sample_idx for one in own}) == len({one.rejected.sample_idx for one in own}) == len(own)
        assert all(one.chosen.correct and one.rejected.correct is False for one in own)


def test_one_to_one_draws_other_counterparts_for_another_seed():
    groups = [group("a", "+++++-----")]
    drawn = {
        tuple(one.rejected.sample_idx for one in pair(groups, pairing="one_to_one", seed=s).pairs) for s in range(9)
    }
    assert len(drawn) > 1


@pytest.mark.parametrize("pairing", sorted(PAIRINGS))
@pytest.mark.parametrize("max_pairs", [None, 3])
def test_pairs_do_not_depend_on_the_order_of_the_input(pairing, max_pairs):
    groups = many_groups()
    mine, other = (pair(some, pairing=pairing, max_pairs=max_pairs, seed=4) for some in (groups, shuffled(groups)))
    assert set(indices(mine)) == set(indices(other))
    assert mine.dropped == other.dropped


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.text(alphabet="+-?", min_size=1, max_size=8), min_size=1, max_size=6),
    pairing=st.sampled_from(sorted(PAIRINGS)),
    max_pairs=st.none() | st.integers(1, 6),
    seed=st.integers(0, 3),
)
def test_pairs_are_few_enough_of_both_classes_and_add_up_with_what_is_left_out(labels, pairing, max_pairs, seed):
    groups = [group("both", "+-"), *(group(f"p{i}", some) for i, some in enumerate(labels))]
    paired = pair(groups, pairing=pairing, max_pairs=max_pairs, seed=seed)
    assert len(set(indices(paired))) == len(paired.pairs)
    assert all(
        one.chosen.correct is True
        and one.rejected.correct is False
        and one.chosen.problem_id == one.rejected.problem_id
        for one in paired.pairs
    )
    of_each = [sum(one.chosen.problem_id == each.problem_id for one in paired.pairs) for each in groups]
    assert max_pairs is None or max(of_each) <= max_pairs
    assert_adds_up(size(groups), used_by(paired), paired.dropped, pairs=True)


def test_max_pairs_limits_a_group_and_counts_the_rest_and_smaller_limits_are_nested():
    groups = [group("a", "+++---"), group("b", "+-")]  # 9 pairs and 1
    few, more = pair(groups, max_pairs=2), pair(groups, max_pairs=5)
    assert (len(few.pairs), few.dropped["pairs above max_pairs"]) == (2 + 1, 7)
    assert (len(more.pairs), more.dropped["pairs above max_pairs"]) == (5 + 1, 4)
    assert set(indices(few)) < set(indices(more))


def test_pairing_and_max_pairs_out_of_range_are_refused():
    groups = [group("a", "+-")]
    with pytest.raises(ConfigError, match="Did you mean 'cartesian'"):
        pair(groups, pairing="cartesain")
    with pytest.raises(ConfigError, match="max_pairs"):
        pair(groups, max_pairs=0)


def test_real_rollouts_give_the_pairs_that_their_labels_say(real_data):
    from freeprm.io.rollouts import read_rollouts
    from freeprm.types import group_rollouts

    groups = group_rollouts(read_rollouts([real_data / "qwen3_dapo_pointwise" / "rollouts.jsonl"]).rollouts)
    right = [sum(rollout.correct is True for rollout in each.rollouts) for each in groups]
    assert all(
        2 * n == len(each.rollouts) for n, each in zip(right, groups, strict=True)
    )  # what the data says of itself
    assert len(pair(groups).pairs) == sum(n * n for n in right)
    assert len(pair(groups, pairing="one_to_one").pairs) == sum(right)


def test_a_group_with_gaps_in_its_numbers_is_paired_like_any_other():
    whole = group("a", "+-+-")
    sparse = Group(
        problem_id="a", prompt="q", rollouts=tuple(replace(r, sample_idx=7 * r.sample_idx) for r in whole.rollouts)
    )
    assert indices(pair([sparse])) == [("a", 7 * one, 7 * other) for _, one, other in indices(pair([whole]))]
