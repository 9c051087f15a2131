from collections import Counter

import pytest

from freeprm.core.graded import size
from freeprm.core.subsampling import subsample_instructions, subsample_responses
from freeprm.errors import ConfigError
from labelled import assert_adds_up, group, many_groups, members, shuffled


def test_subsampled_instructions_are_nested_exact_in_number_and_independent_of_order():
    groups = many_groups()
    shares = {share: subsample_instructions(groups, share, seed=3) for share in (0.25, 0.5, 0.75, 1.0)}
    sizes = {share: len(kept.groups) for share, kept in shares.items()}
    assert sizes == {0.25: 10, 0.5: 20, 0.75: 30, 1.0: 40}
    assert all(kept.groups == [each for each in groups if each in kept.groups] for kept in shares.values())
    ids = [{each.problem_id for each in kept.groups} for kept in shares.values()]
    assert ids[0] < ids[1] < ids[2] < ids[3]
    assert ids[0] == {each.problem_id for each in subsample_instructions(shuffled(groups), 0.25, seed=3).groups}
    assert ids[0] != {each.problem_id for each in subsample_instructions(groups, 0.25, seed=4).groups}


def test_subsampled_responses_are_nested_and_independent_of_order():
    groups = many_groups()
    kept = {k: subsample_responses(groups, k, seed=3) for k in (1, 2, 4, 9)}
    assert all(len(each.rollouts) <= k for k, some in kept.items() for each in some.groups)
    sets = [members(some.groups) for some in kept.values()]
    assert sets[0] < sets[1] < sets[2] < sets[3] == members(groups)
    assert sets[1] == members(subsample_responses(shuffled(groups), 2, seed=3).groups)
    assert kept[1].dropped == {"responses left out by subsampling": len(members(groups)) - len(groups)}


@pytest.mark.parametrize(
    "use", [lambda groups: subsample_instructions(groups, 0.4), lambda groups: subsample_responses(groups, 3)]
)
def test_what_subsampling_keeps_and_what_it_drops_add_up(use):
    groups = many_groups()
    kept = use(groups)
    assert_adds_up(size(groups), size(kept.groups), kept.dropped)


def test_subsampling_does_not_favour_a_place_in_the_group():
    # 2,000 draws of 1 of 4: each place is expected 500 times, standard deviation sqrt(2000 * 1/4 * 3/4) = 19.4.
    groups = [group(f"p{i}", "++--") for i in range(2000)]
    places = Counter(each.rollouts[0].sample_idx for each in subsample_responses(groups, 1).groups)
    assert all(abs(count - 500) < 5 * 19.4 for count in places.values())


def test_subsampled_responses_keep_the_pairs_to_be_expected():
    # Each of the 2 * 2 pairs of ++-- survives a draw of 2 of 4 with 2/4 * 1/3 = 1/6: 4/6 pairs a group. A draw gives
    # 1 pair with probability 4/6, else none, so over 3,000 groups the standard deviation is sqrt(3000 * 2/9) = 25.8.
    groups = [group(f"p{i}", "++--") for i in range(3000)]
    assert abs(size(subsample_responses(groups, 2).groups).pairs - 2000) < 5 * 25.8


def test_real_solutions_keep_the_pairs_to_be_expected(real_data):
    from freeprm.io.rollouts import read_rollouts
    from freeprm.types import group_rollouts

    path = real_data / "gsm8k" / "rollouts_example_model_solutions.jsonl"
    groups = group_rollouts(read_rollouts([path]).rollouts)  # 4 responses to each of 1,319 problems
    for k in (2, 3):
        expected = size(groups).pairs * k * (k - 1) / (4 * 3)
        found = [size(subsample_responses(groups, k, seed=seed).groups).pairs for seed in range(8)]
        # A group is left with 2 pairs at most, so its variance is at most twice its mean, and so is their sum's.
        assert abs(sum(found) / len(found) - expected) < 5 * (2 * expected / len(found)) ** 0.5


def test_shares_and_numbers_out_of_range_are_refused():
    groups = [group("a", "+-")]
    with pytest.raises(ConfigError, match=r"instructions: is 0\.0"):
        subsample_instructions(groups, 0.0)
    with pytest.raises(ConfigError, match="responses: is 0"):
        subsample_responses(groups, 0)
