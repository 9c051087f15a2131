import json
import random
from collections import Counter
from dataclasses import asdict, replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.curation import (
    BALANCES,
    Recipe,
    balance,
    curate,
    deduplicate,
    make_pairs,
    recalled,
    recorded,
    subsample_instructions,
    subsample_responses,
)
from freeprm.core.groups import size
from freeprm.core.mixing import SOURCE
from freeprm.errors import ConfigError
from freeprm.types import Group
from labelled import assert_adds_up, group, labels_of, many_groups, members, shuffled

EVERYTHING = Recipe(
    mix={"b": 0.25}, replace={"base": 0.5}, deduplicate=0.8, instructions=0.75, responses=6, balance="dataset",
    pairing="one_to_one", max_pairs=2, seed=3,
)  # fmt: skip


def sources():
    """Other problems to mix in, and other responses to the same problems."""
    others = [group(f"b{i}", "+-+-", prompt=f"b{i}") for i in range(20)]
    base = [
        replace(each, rollouts=tuple(replace(r, correct=False, response=f"base {r.response}") for r in each.rollouts))
        for each in many_groups()
    ]
    return {"b": others, "base": base}


def test_without_a_word_said_only_what_cannot_be_used_is_left_out():
    curated = curate(many_groups(), Recipe(), needs_pairs=False)
    assert [done.name for done in curated.operations] == ["trainable"]
    assert members(curated.groups) == {
        (one.problem_id, one.sample_idx) for each in many_groups() for one in each.rollouts if one.correct is not None
    }
    assert not any(SOURCE in one.extra for each in curated.groups for one in each.rollouts)


def test_operations_come_in_their_order_each_from_what_the_one_before_left():
    curated = curate(many_groups(), EVERYTHING, sources=sources(), needs_pairs=True)
    paired = make_pairs(curated.groups, EVERYTHING)
    done = [*curated.operations, paired.operation]
    assert [one.name for one in done] == [
        "mix b 0.25", "replace base 0.5", "deduplicate 0.8", "instructions 0.75", "responses 6", "trainable",
        "balance dataset", "pair one_to_one, at most 2",
    ]  # fmt: skip
    assert done[0].before == size(many_groups()) + size(sources()["b"])
    assert all(one.after == after.before for one, after in pairwise(done))
    assert done[-2].after == size(curated.groups)
    assert done[-1].after.pairs == len(paired.pairs)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 50),
    deduplicate=st.none() | st.sampled_from([0.1, 1.0]),
    instructions=st.sampled_from([0.5, 1.0]),
    responses=st.none() | st.integers(4, 8),
    balance=st.sampled_from(["none", "dataset", "instruction"]),
    pairing=st.sampled_from(["cartesian", "one_to_one"]),
    max_pairs=st.none() | st.integers(1, 3),
    mixed=st.booleans(),
)
def test_every_operation_adds_up_and_none_depends_on_the_order(mixed, seed, **how):
    recipe = Recipe(seed=seed, mix={"b": 0.25} if mixed else {}, **how)
    groups, other = many_groups(seed % 4), {"b": sources()["b"]}
    mine = curate(groups, recipe, sources=other, needs_pairs=True)
    theirs = curate(shuffled(groups), recipe, sources={"b": shuffled(other["b"])}, needs_pairs=True)
    assert members(mine.groups) == members(theirs.groups)
    assert mine.operations == theirs.operations
    paired, again = make_pairs(mine.groups, recipe), make_pairs(theirs.groups, recipe)
    assert paired.operation == again.operation
    for done in mine.operations:
        assert_adds_up(done.before, done.after, done.left_out)
    last = paired.operation
    assert_adds_up(last.before, last.after, last.left_out, pairs=True)


def test_balance_is_of_what_all_else_left():
    counts = labels_of(curate(many_groups(), EVERYTHING, sources=sources(), needs_pairs=True).groups)
    assert counts[True] == counts[False] > 0


def test_rollouts_tell_their_source_where_there_are_several():
    recipe = replace(EVERYTHING, instructions=1.0, responses=None, balance="none")
    curated = curate(many_groups(), recipe, sources=sources(), name="runs/a", needs_pairs=False)
    by_source = {one.extra[SOURCE]: one for each in curated.groups for one in each.rollouts}
    assert {*by_source} == {"runs/a", "b", "base"}
    assert by_source["b"].problem_id.startswith("b")
    assert by_source["base"].response.startswith("base")


@pytest.mark.parametrize("counts", [{}, {"pairs": 3, "skipped: not valid JSON": 1}])
def test_operations_come_back_from_a_manifest_as_they_were(counts):
    operations = curate(many_groups(), EVERYTHING, sources=sources(), needs_pairs=True).operations
    kept = json.loads(json.dumps(recorded(counts, operations)))
    assert recalled(kept) == (counts, operations)
    assert recalled(counts) == (counts, [])
    assert asdict(EVERYTHING)["mix"] == {"b": 0.25}


@pytest.mark.parametrize("seed", range(5))
def test_dataset_balance_leaves_as_many_right_as_wrong_and_all_of_the_minority(seed):
    groups = many_groups(seed)
    before, kept = labels_of(groups), balance(groups, how="dataset", seed=seed)
    minority = min(before[True], before[False])
    assert labels_of(kept.groups) == {True: minority, False: minority}
    assert kept.dropped["responses of a majority class"] == abs(before[True] - before[False])
    assert kept.dropped["ungraded responses"] == before[None]


@pytest.mark.parametrize("seed", range(5))
def test_instruction_balance_leaves_as_many_right_as_wrong_in_each_group(seed):
    groups = many_groups(seed)
    for each in balance(groups, how="instruction", seed=seed).groups:
        counts = labels_of([each])
        assert counts[True] == counts[False] > 0


@pytest.mark.parametrize("how", ["dataset", "instruction"])
@pytest.mark.parametrize("seed", range(5))
def test_what_balance_keeps_and_what_it_drops_add_up(how, seed):
    groups = many_groups(seed)
    kept = balance(groups, how=how, seed=seed)
    assert_adds_up(size(groups), size(kept.groups), kept.dropped)


@pytest.mark.parametrize("how", sorted(BALANCES))
def test_balance_does_not_depend_on_the_order_of_the_input(how):
    groups = many_groups()
    mine, other = balance(groups, how=how, seed=2), balance(shuffled(groups), how=how, seed=2)
    assert members(mine.groups) == members(other.groups)
    assert mine.dropped == other.dropped


def test_balance_none_changes_nothing():
    groups = many_groups()
    assert balance(groups, how="none") == (groups, Counter(), Counter())


def test_balance_draws_another_majority_for_another_seed():
    groups = [group("a", "+---------")]
    assert len({frozenset(members(balance(groups, how="dataset", seed=s).groups)) for s in range(9)}) > 1


def test_an_unknown_balance_is_refused():
    with pytest.raises(ConfigError, match="expected one of none, dataset, instruction"):
        balance([group("a", "+-")], how="response")


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


def overlap(one, other):
    """The definition, word by word."""
    a, b = ({tuple(words[i : i + 8]) for i in range(max(len(words) - 7, 1))} for words in (one.split(), other.split()))
    return len(a & b) / len(a | b)


def kept_of(texts, threshold=1.0, labels=None):
    kept = deduplicate([group("a", labels or "+" * len(texts), texts=texts)], threshold)
    return sorted(idx for _, idx in members(kept.groups)), kept


def words(*numbers):
    return " ".join(f"w{number}" for number in numbers)


def test_the_first_of_equal_responses_stays_in_its_group_and_labels_that_disagree_are_noted():
    first = group("a", "+-++?", texts=["same", "other", "same", "same", "same"])
    second = group("b", "+", texts=["same"])
    backwards = replace(first, rollouts=first.rollouts[::-1])
    kept = deduplicate([backwards, second])
    assert members(kept.groups) == {("a", 0), ("a", 1), ("b", 0)}
    assert kept.dropped == {"repeated responses": 3}
    assert kept.noted == {"repeated responses with another label": 1}


def test_overlap_is_of_all_runs_of_eight_words_and_the_threshold_is_within():
    # 19 words have 12 runs of eight. Another last word changes one of them: 11 in common of 13.
    texts = [words(*range(19)), words(*range(18), 99)]
    assert kept_of(texts, 11 / 13)[0] == [0]
    assert kept_of(texts, 12 / 13)[0] == [0, 1]
    # Another word in the middle changes all eight runs that it is in: 4 in common of 20.
    middle = [words(*range(19)), words(*range(9), 99, *range(10, 19))]
    assert kept_of(middle, 4 / 20)[0] == [0]
    assert kept_of(middle, 5 / 20)[0] == [0, 1]


def test_half_of_a_response_repeats_it_at_half_the_runs_only():
    texts = [words(*range(27)), words(*range(17))]  # 20 runs, of which the other has 10
    assert kept_of(texts, 0.51)[0] == [0, 1]
    assert kept_of(texts, 0.5)[0] == [0]


def test_responses_under_eight_words_repeat_each_other_only_if_all_words_are_the_same():
    assert kept_of(["A: 4", "A:  4\n", "A: 5", "A: 4 .", ""], 1e-9)[0] == [0, 2, 3, 4]


def test_the_words_decide_and_not_the_space_between_them():
    spaced = words(*range(12))
    assert kept_of([spaced, spaced.replace(" ", "\n")])[0] == [0]


def test_a_response_that_was_cut_off_stays_beside_one_that_ended():
    one, other = group("a", "+-", texts=["1 + 1", "1 + 1"]).rollouts
    both = Group(problem_id="a", prompt="q", rollouts=(one, replace(other, truncated=True)))
    assert deduplicate([both]).groups == [both]


def test_a_right_and_a_wrong_response_may_repeat_each_other():
    _, kept = kept_of([words(*range(40), 7), words(*range(40), 8)], 0.9, labels="-+")
    assert (kept.dropped.total(), kept.noted.total()) == (1, 1)


def variants(rng, count):
    """Responses that differ from each other in some of their words."""
    base = [f"w{rng.randrange(30)}" for _ in range(rng.randrange(1, 40))]
    return [
        " ".join(word if rng.random() > 0.03 else "x" for word in base[: rng.randrange(1, len(base) + 1)])
        for _ in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.05, 0.3, 0.5, 0.8, 1.0]))
def test_no_two_kept_responses_overlap_and_each_one_dropped_overlaps_an_earlier_one(seed, threshold):
    rng = random.Random(seed)
    groups = [group(f"p{i}", "".join(rng.choices("+-", k=8)), texts=variants(rng, 8)) for i in range(3)]
    kept = deduplicate(groups, threshold)
    for before, after in zip(groups, kept.groups, strict=True):
        texts = {rollout.sample_idx: rollout.response for rollout in after.rollouts}
        assert all(overlap(one, other) < threshold for one, other in combinations(texts.values(), 2))
        for rollout in before.rollouts:
            earlier = [text for idx, text in texts.items() if idx < rollout.sample_idx]
            repeats = any(overlap(rollout.response, text) >= threshold for text in earlier)
            assert repeats is (rollout.sample_idx not in texts)
    assert members(kept.groups) == members(deduplicate(shuffled(groups), threshold).groups)
    assert_adds_up(size(groups), size(kept.groups), kept.dropped)


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigError, match="deduplicate: is"):
        deduplicate([group("a", "+-")], threshold)


def test_real_samples_repeat_each_other_as_their_overlaps_say(real_data):
    from freeprm.io.rollouts import read_rollouts
    from freeprm.types import group_rollouts

    groups = group_rollouts(read_rollouts([real_data / "qwen_rm_maj_100x8" / "rollouts.jsonl"]).rollouts)
    for threshold in (0.9, 0.5):
        kept = deduplicate(groups, threshold)
        texts = [[rollout.response for rollout in each.rollouts] for each in kept.groups]
        assert max(overlap(*two) for own in texts for two in combinations(own, 2)) < threshold
        assert len(kept.groups) == len(groups)
        assert kept.dropped.total() > 50  # a strong model says much the same eight times
