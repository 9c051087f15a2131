from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.graded import Size, size
from freeprm.core.preferences import PAIRINGS, pair
from freeprm.errors import ConfigError
from freeprm.types import Group
from labelled import assert_adds_up, group, many_groups, shuffled


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
