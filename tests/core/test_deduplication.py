import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.deduplication import deduplicate
from freeprm.core.graded import size
from freeprm.errors import ConfigError
from freeprm.types import Group
from labelled import assert_adds_up, group, members, shuffled


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
