import random
from collections import Counter
from dataclasses import replace

import pytest

from freeprm.core.preferences import (
    BALANCES,
    PAIRINGS,
    balance,
    deduplicate,
    pair,
    subsample_instructions,
    subsample_responses,
    trainable,
)
from freeprm.errors import ConfigError, DataError
from freeprm.types import Group, Rollout


def group(problem_id, labels, **changes):
    """A group with one response a character: + right, - wrong, ? ungraded."""
    meaning = {"+": True, "-": False, "?": None}
    rollouts = tuple(
        Rollout(problem_id=problem_id, sample_idx=i, prompt="q", response=f"r{i}", correct=meaning[sign], **changes)
        for i, sign in enumerate(labels)
    )
    return Group(problem_id=problem_id, prompt="q", rollouts=rollouts)


def many_groups(seed=0, count=40):
    rng = random.Random(seed)
    return [group(f"p{i}", "".join(rng.choices("+-?", weights=[3, 6, 1], k=rng.randint(1, 9)))) for i in range(count)]


def members(groups):
    """Who is in, whatever the order."""
    return {(one.problem_id, one.sample_idx) for each in groups for one in each.rollouts}


def shuffled(groups, seed=1):
    rng = random.Random(seed)
    mixed = [replace(each, rollouts=tuple(rng.sample(each.rollouts, len(each.rollouts)))) for each in groups]
    return rng.sample(mixed, len(mixed))


def labels_of(groups):
    return Counter(rollout.correct for each in groups for rollout in each.rollouts)


def test_cartesian_pairs_are_all_right_with_all_wrong_of_a_group():
    paired = pair([group("a", "+-+-"), group("b", "++"), group("c", "-"), group("d", "?+-")])
    indices = [(one.chosen.problem_id, one.chosen.sample_idx, one.rejected.sample_idx) for one in paired.pairs]
    assert indices == [("a", 0, 1), ("a", 0, 3), ("a", 2, 1), ("a", 2, 3), ("d", 1, 2)]
    assert paired.dropped == {
        "groups without a wrong response": 1,
        "groups without a right response": 1,
        "responses without a counterpart": 3,  # b's two, c's one; the ungraded one of d takes no part
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
    def chosen_pairs(groups):
        made = pair(groups, pairing=pairing, max_pairs=max_pairs, seed=4).pairs
        return {(one.chosen.problem_id, one.chosen.sample_idx, one.rejected.sample_idx) for one in made}

    groups = many_groups()
    assert chosen_pairs(shuffled(groups)) == chosen_pairs(groups)


def test_max_pairs_limits_a_group_and_counts_the_rest_and_smaller_limits_are_nested():
    groups = [group("a", "+++---"), group("b", "+-")]  # 9 pairs and 1
    few, more = pair(groups, max_pairs=2), pair(groups, max_pairs=5)
    assert (len(few.pairs), few.dropped) == (2 + 1, {"pairs above max_pairs": 7})
    assert (len(more.pairs), more.dropped) == (5 + 1, {"pairs above max_pairs": 4})
    assert set(map(id, (r for one in few.pairs for r in one))) <= set(map(id, (r for one in more.pairs for r in one)))


def test_pairs_become_groups_of_two_with_their_prompt():
    groups = pair([group("a", "+--")]).groups
    assert [[rollout.sample_idx for rollout in each.rollouts] for each in groups] == [[0, 1], [0, 2]]
    assert {(each.problem_id, each.prompt) for each in groups} == {("a", "q")}


@pytest.mark.parametrize("seed", range(5))
def test_dataset_balance_leaves_as_many_right_as_wrong_and_all_of_the_minority(seed):
    groups = many_groups(seed)
    before, kept = labels_of(groups), balance(groups, how="dataset", seed=seed)
    minority = min(before[True], before[False])
    assert labels_of(kept.groups) == {True: minority, False: minority}
    assert kept.dropped["responses of a majority class"] == abs(before[True] - before[False])
    assert kept.dropped["ungraded responses"] == before[None]
    assert kept.dropped["groups left empty"] == len(groups) - len(kept.groups)


@pytest.mark.parametrize("seed", range(5))
def test_instruction_balance_leaves_as_many_right_as_wrong_in_each_group(seed):
    groups = many_groups(seed)
    kept = balance(groups, how="instruction", seed=seed)
    for each in kept.groups:
        counts = labels_of([each])
        assert counts[True] == counts[False] > 0
    lacking = sum(count for reason, count in kept.dropped.items() if reason.startswith("groups without"))
    # A group without either class has one reason, a group without one class too: each dropped group is counted once.
    assert lacking == len(groups) - len(kept.groups)
    assert len(members(groups)) - len(members(kept.groups)) == (
        kept.dropped["responses of a majority class"] + kept.dropped["ungraded responses"]
    )


@pytest.mark.parametrize("how", sorted(BALANCES))
def test_balance_does_not_depend_on_the_order_of_the_input(how):
    groups = many_groups()
    mine, other = balance(groups, how=how, seed=2), balance(shuffled(groups), how=how, seed=2)
    assert members(mine.groups) == members(other.groups)
    assert mine.dropped == other.dropped


def test_balance_none_changes_nothing():
    groups = many_groups()
    assert balance(groups, how="none") == (groups, Counter())


def test_balance_draws_another_majority_for_another_seed():
    groups = [group("a", "+---------")]
    assert len({frozenset(members(balance(groups, how="dataset", seed=s).groups)) for s in range(9)}) > 1


def test_deduplicate_keeps_the_first_of_equal_responses_in_a_group_only():
    rollouts = group("a", "+-++?").rollouts
    texts = ["same", "other", "same", "same", "same"]
    first = Group(
        problem_id="a", prompt="q",
        rollouts=tuple(replace(r, response=t) for r, t in zip(reversed(rollouts), reversed(texts), strict=True)),
    )  # fmt: skip
    second = Group(problem_id="b", prompt="q", rollouts=(replace(rollouts[0], problem_id="b", response="same"),))
    kept = deduplicate([first, second])
    assert members(kept.groups) == {("a", 0), ("a", 1), ("b", 0)}
    assert kept.dropped == {"duplicate responses": 3, "duplicate responses with another label": 1}


def test_deduplicate_keeps_a_cut_off_response_beside_one_that_ended():
    rollouts = tuple(replace(r, response="1 + 1") for r in group("a", "+-").rollouts)
    both = Group(problem_id="a", prompt="q", rollouts=(rollouts[0], replace(rollouts[1], truncated=True)))
    assert deduplicate([both]) == ([both], Counter())


def test_subsampled_instructions_are_nested_exact_in_number_and_independent_of_order():
    groups = many_groups()
    shares = {share: subsample_instructions(groups, share, seed=3) for share in (0.25, 0.5, 0.75, 1.0)}
    sizes = {share: len(kept.groups) for share, kept in shares.items()}
    assert sizes == {0.25: 10, 0.5: 20, 0.75: 30, 1.0: 40}
    assert shares[0.25].dropped == {"groups left out by subsampling": 30}
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


def test_subsampling_does_not_favour_a_place_in_the_group():
    # 2,000 draws of 1 of 4: each place is expected 500 times, standard deviation sqrt(2000 * 1/4 * 3/4) = 19.4.
    groups = [group(f"p{i}", "++--") for i in range(2000)]
    places = Counter(each.rollouts[0].sample_idx for each in subsample_responses(groups, 1).groups)
    assert all(abs(count - 500) < 5 * 19.4 for count in places.values())


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
        "groups without a right response": 1,
    }


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


def test_settings_out_of_range_are_refused():
    groups = [group("a", "+-")]
    with pytest.raises(ConfigError, match="Did you mean 'cartesian'"):
        pair(groups, pairing="cartesain")
    with pytest.raises(ConfigError, match="max_pairs"):
        pair(groups, max_pairs=0)
    with pytest.raises(ConfigError, match="expected one of none, dataset, instruction"):
        balance(groups, how="response")
    with pytest.raises(ConfigError, match="share"):
        subsample_instructions(groups, 0.0)
    with pytest.raises(ConfigError, match="k: is 0"):
        subsample_responses(groups, 0)


def test_real_rollouts_balanced_inside_each_prompt_stay_as_they_are(real_data):
    from freeprm.io.formats import read_rollouts
    from freeprm.types import group_rollouts

    groups = group_rollouts(read_rollouts([real_data / "qwen3_dapo_pointwise" / "rollouts.jsonl"]).rollouts)
    kept = balance(groups, how="instruction")
    counts = [labels_of([each]) for each in groups]
    assert all(count[True] == count[False] for count in counts)  # what the data says of itself
    assert members(kept.groups) == members(groups)
    assert not kept.dropped
    assert len(pair(groups).pairs) == sum(count[True] * count[False] for count in counts)
    assert len(pair(groups, pairing="one_to_one").pairs) == sum(count[True] for count in counts)
