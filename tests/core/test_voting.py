import math
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeprm.core import voting as subsets
from freeprm.core.voting import (
    WEIGHTINGS,
    Flags,
    Indices,
    best_of_n,
    best_of_n_chances,
    distinct_text_accuracies,
    draw_subsets,
    majority,
    pass_at_k,
    raw,
    uniform,
    vote_chances,
    weighted_vote,
    weighting,
)
from freeprm.errors import ConfigError, DataError, NonFiniteError

ANSWERS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9)


def test_best_of_n_takes_the_first_of_equals():
    assert best_of_n([0.1, 0.7, 0.7]) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_best_of_n_refuses_what_is_not_finite(bad: float):
    with pytest.raises(NonFiniteError, match="score 1 is"):
        best_of_n([0.1, bad])


def test_best_of_none_is_refused():
    with pytest.raises(DataError, match="no scores"):
        best_of_n([])


def test_majority_takes_the_most_frequent():
    assert majority(["4", "5", "5"]) == "5"


def test_majority_takes_the_first_seen_of_equals():
    assert majority(["4", "5", "5", "4", "6"]) == "4"


def test_missing_answers_do_not_vote_even_where_they_are_most():
    assert majority([None, "4", None, None]) == "4"


def test_a_vote_without_answers_has_no_winner():
    assert majority([None, None]) is None
    assert majority([]) is None


def test_weighted_vote_sums_weights_by_answer():
    # 4: 0.2 + 0.3 = 0.5; 5: 0.4
    assert weighted_vote(["5", "4", "4"], [0.4, 0.2, 0.3]) == "4"


def test_negative_weights_count_against_an_answer():
    # 4: 1 - 2 = -1; 5: -0.5. The largest sum may be negative.
    assert weighted_vote(["4", "4", "5"], [1.0, -2.0, -0.5]) == "5"


def test_weighted_vote_wants_a_weight_an_answer():
    with pytest.raises(DataError, match="2 answers with 1 weights"):
        weighted_vote(["4", "5"], [1.0])


@given(ANSWERS)
def test_equal_weights_make_the_majority_vote(answers: list[str | None]):
    assert weighted_vote(answers, [0.25] * len(answers)) == majority(answers)


@given(ANSWERS)
def test_one_weight_above_all_others_together_decides(answers: list[str | None]):
    weights = [1.0] * len(answers)
    weights[-1] = len(answers) + 1.0
    assert answers[-1] is None or weighted_vote(answers, weights) == answers[-1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sigmoid", [1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-2))]),
        ("raw", [-2.0, 0.0, 2.0]),
        ("exp", [math.exp(-4), math.exp(-2), 1.0]),
        ("rank", [1 / 3, 2 / 3, 1.0]),
        ("uniform", [1.0, 1.0, 1.0]),
    ],
)
def test_a_weighting_gives_the_weights_of_its_formula(name: str, expected: list[float]):
    assert weighting(name)(np.array([-2.0, 0.0, 2.0])) == pytest.approx(expected)


def test_rank_averages_over_ties():
    # ranks from below: 1 and 2 shared by the two lowest, then 3 and 4
    assert weighting("rank")(np.array([5.0, 0.0, 0.0, 9.0])) == pytest.approx([3 / 4, 1.5 / 4, 1.5 / 4, 1.0])


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_are_finite_and_keep_the_order_of_scores(name: str):
    weights = WEIGHTINGS[name](np.array([-900.0, -1.0, 0.0, 900.0]))
    assert np.isfinite(weights).all()
    assert (np.diff(weights) >= 0).all()


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_many_votes_are_weighted_each_for_itself(name: str):
    scores = np.array([[0.0, 1.0, 2.0], [5.0, -3.0, 5.0]])
    assert WEIGHTINGS[name](scores) == pytest.approx(np.stack([WEIGHTINGS[name](row) for row in scores]))


def test_a_small_beta_turns_sigmoid_weights_into_a_majority_vote_and_ranks_not():
    answers, scores = ["4", "5", "5"], np.array([900.0, -400.0, -500.0])
    assert weighted_vote(answers, list(weighting("sigmoid")(scores))) == "4"  # 1 against 0 + 0
    assert weighted_vote(answers, list(weighting("sigmoid")(scores * 1e-6))) == "5"  # 1/2 against 1/2 + 1/2
    by_rank = [weighting("rank")(scores * scale) for scale in (1.0, 1e-6)]
    assert by_rank[0] == pytest.approx(by_rank[1])


def test_an_unknown_weighting_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match="Did you mean 'sigmoid'"):
        weighting("sigmiod")


def test_pass_at_k_counts_the_subsets_that_hold_a_right_one():
    # 1 - C(3, 2) / C(5, 2) = 1 - 3/10
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)


@pytest.mark.parametrize("c", range(6))
@pytest.mark.parametrize("k", range(1, 6))
def test_pass_at_k_is_the_mean_over_all_subsets(c: int, k: int):
    labels = [index < c for index in range(5)]
    assert pass_at_k(5, c, k) == pytest.approx(np.mean([any(part) for part in combinations(labels, k)]))


def test_pass_at_1_is_the_share_of_right_responses():
    assert pass_at_k(64, 24, 1) == pytest.approx(24 / 64)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int):
    with pytest.raises(DataError, match=f"pass@{k}"):
        pass_at_k(n, c, k)


def test_standardised_weights_know_neither_scale_nor_zero():
    scores = np.array([[-3.0, 0.0, 3.0], [1.0, 1.0, 4.0]])
    weights = weighting("standardised")(scores)
    # -3, 0, 3 have mean 0 and standard deviation sqrt(6): sigmoid(3 / sqrt(6)) = 0.7729
    assert weights[0] == pytest.approx([1 - 0.7729, 0.5, 0.7729], abs=1e-4)
    assert weighting("standardised")(1000 * scores + 7) == pytest.approx(weights)


def test_equal_scores_are_standardised_to_equal_weights():
    assert weighting("standardised")(np.array([0.1] * 10)).tolist() == [0.5] * 10  # their mean is not 0.1 exactly
    assert weighting("standardised")(np.array([5.0])).tolist() == [0.5]


def test_best_of_two_of_three_falls_on_the_best_in_two_of_three_subsets():
    # {0,1}: 1 is best, {0,2}: 2 is best, {1,2}: 2 is best
    assert best_of_n_chances(np.array([0.1, 0.2, 0.3]), 2).samples == pytest.approx([0, 1 / 3, 2 / 3])


TIED_SCORES = np.array([0.5, 0.9, 0.1, 0.9, 0.5, 0.5, -1.0])
#                 a    b    c    b    a    d    e     0 and 4 are one text, 5 is another with the same score
TIED_TEXTS = np.array([0, 1, 2, 1, 0, 3, 4])


@pytest.mark.parametrize("n", range(1, 8))
def test_best_of_n_is_the_mean_over_all_subsets_in_which_equals_share(n: int):
    counts, tied = np.zeros(7), 0
    for subset in combinations(range(7), n):
        best = [i for i in subset if TIED_SCORES[i] == TIED_SCORES[list(subset)].max()]
        counts[best] += 1 / len(best)
        tied += len({TIED_TEXTS[i] for i in best}) > 1
    found = best_of_n_chances(TIED_SCORES, n, texts=TIED_TEXTS)
    assert found.samples == pytest.approx(counts / comb(7, n))
    assert found.tied == pytest.approx(tied / comb(7, n))


def test_ties_do_not_depend_on_the_order_of_samples():
    order = np.random.default_rng(0).permutation(7)
    for n in range(1, 8):
        here, there = best_of_n_chances(TIED_SCORES, n), best_of_n_chances(TIED_SCORES[order], n)
        assert there.samples == pytest.approx(here.samples[order])
        assert there.tied == pytest.approx(here.tied)


def test_equal_scores_choose_at_random_though_the_right_answer_stands_first():
    assert best_of_n_chances(np.zeros(4), 4).samples.tolist() == [0.25] * 4
    vote = vote_chances(np.arange(4), np.ones(4, bool), np.zeros(4), weigh=uniform, subsets=np.arange(4)[None])
    assert (vote.samples.tolist(), vote.tied) == ([0.25] * 4, 1.0)


@pytest.mark.parametrize("count", [1, 2, 64, 1000])
def test_best_of_n_chances_sum_to_one(count: int):
    scores = np.random.default_rng(0).normal(size=count)
    for n in (1, (count + 1) // 2, count):
        assert best_of_n_chances(scores, n).samples.sum() == pytest.approx(1.0)


def test_best_of_all_is_shared_by_the_best_with_certainty():
    found = best_of_n_chances(np.array([0.5, 0.9, 0.9]), 3)
    assert (found.samples.tolist(), found.tied) == ([0.0, 0.5, 0.5], 1.0)


def test_best_of_n_chances_refuse_nan():
    with pytest.raises(NonFiniteError):
        best_of_n_chances(np.array([0.5, np.nan]), 1)


@pytest.mark.parametrize("n", [0, 4])
def test_more_samples_than_there_are_cannot_be_chosen_from(n: int):
    with pytest.raises(DataError, match=f"{n} of 3 samples"):
        best_of_n_chances(np.zeros(3), n)
    with pytest.raises(DataError, match=f"{n} of 3 samples"):
        draw_subsets(3, n, draws=10, seed=0)


def test_few_subsets_are_all_taken_once():
    drawn = draw_subsets(8, 4, draws=70, seed=0)  # C(8, 4) = 70
    assert sorted(map(tuple, drawn)) == list(combinations(range(8), 4))


def test_drawn_subsets_are_ascending_distinct_and_repeat_with_their_seed():
    drawn = draw_subsets(64, 16, draws=200, seed=3)
    assert drawn.shape == (200, 16)
    assert (np.diff(drawn, axis=1) > 0).all()
    draw_subsets.cache_clear()
    assert (draw_subsets(64, 16, draws=200, seed=3) == drawn).all()
    assert (draw_subsets(64, 16, draws=200, seed=4) != drawn).any()


def test_every_sample_is_drawn_about_equally_often():
    drawn = draw_subsets(10, 3, draws=100, seed=0)
    times = np.bincount(drawn.ravel(), minlength=10)
    assert abs(times - 30).max() < 4 * np.sqrt(100 * 0.3 * 0.7)  # binomial(100, 0.3), four standard deviations


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("n", [1, 3, 6])
def test_vote_chances_are_weighted_votes_on_every_subset_in_which_equals_share(name: str, n: int):
    rng = np.random.default_rng(1)
    for _ in range(20):
        answers = [None if a == 3 else "abc"[a] for a in rng.integers(0, 4, 6)]
        scores = rng.integers(-2, 3, 6) / 2  # ties and negative totals are common
        drawn = draw_subsets(6, n, draws=1000, seed=0)
        expected, tied = np.zeros(6), 0
        for subset in drawn:
            totals: dict[str, float] = {}
            for i, weight in zip(subset, WEIGHTINGS[name](scores[subset]), strict=True):
                if answers[i] is not None:
                    totals[answers[i]] = totals.get(answers[i], 0.0) + weight
            first = [answer for answer in totals if totals[answer] >= max(totals.values()) - 1e-14]
            for answer in first:
                expected[answers.index(answer)] += 1 / len(first)
            tied += len(first) > 1
        names = {answer: index for index, answer in enumerate(dict.fromkeys(answers))}
        found = vote_chances(
            np.array([names[answer] for answer in answers]),
            np.array([answer is not None for answer in answers]),
            scores,
            weigh=WEIGHTINGS[name],
            subsets=drawn,
        )
        assert found.samples == pytest.approx(expected / len(drawn))
        assert found.tied == pytest.approx(tied / len(drawn))


def test_totals_that_differ_by_rounding_are_tied():
    # 0.1 + 0.2 + 0.3 is 0.6000000000000001, 0.3 + 0.2 + 0.1 is 0.6
    scores = np.array([0.1, 0.3, 0.2, 0.2, 0.3, 0.1])
    groups = np.array([0, 1, 0, 1, 0, 1])
    vote = vote_chances(groups, np.ones(6, bool), scores, weigh=raw, subsets=np.arange(6)[None])
    assert (vote.samples.tolist(), vote.tied) == ([0.5, 0.5, 0, 0, 0, 0], 1.0)


def test_an_answer_nobody_in_the_subset_gave_does_not_beat_negative_votes():
    # answers 0, 0 with -1 each; answer 1, of sample 2, is not among them
    vote = vote_chances(
        np.array([0, 0, 1]), np.ones(3, bool), np.array([-1.0, -1.0, 5.0]), weigh=raw, subsets=np.array([[0, 1]])
    )
    assert (vote.samples.tolist(), vote.tied) == ([1.0, 0.0, 0.0], 0.0)


def test_a_subset_without_voters_chooses_nothing():
    vote = vote_chances(
        np.array([0, 1]), np.array([False, True]), np.zeros(2), weigh=uniform, subsets=np.array([[0], [1]])
    )
    assert (vote.samples.tolist(), vote.tied) == ([0.0, 0.5], 0.0)


def test_a_blind_scorer_chooses_among_distinct_texts():
    # texts a a b, a right: {a, a} gives 1, {a, b} twice 1/2
    texts, right = np.array([0, 0, 1]), np.array([True, True, False])
    found = distinct_text_accuracies(texts, right, [1, 2, 3], draws=1, seed=0)
    assert found == pytest.approx([2 / 3, 2 / 3, 1 / 2])


@pytest.mark.parametrize("seed", range(3))
def test_distinct_texts_are_counted_over_every_subset(seed: int):
    rng = np.random.default_rng(seed)
    texts = rng.integers(0, 5, 9)
    right = rng.random(5)[texts] < 0.5
    expected = []
    for n in range(1, 10):
        chosen = [{texts[i]: right[i] for i in subset} for subset in combinations(range(9), n)]
        expected.append(np.mean([np.mean(list(one.values())) for one in chosen]))
    assert distinct_text_accuracies(texts, right, range(1, 10), draws=1, seed=0) == pytest.approx(expected)
    drawn = [  # the way for more samples than are counted exactly
        subsets._drawn_distinct(*distinct(texts, right), draw_subsets(9, n, draws=200, seed=0)) for n in range(1, 10)
    ]
    assert drawn == pytest.approx(expected)  # 200 is more than C(9, 4), so these are all subsets


def distinct(texts: Indices, right: Flags) -> tuple[Indices, Flags]:
    names, numbers = np.unique(texts, return_inverse=True)
    return numbers, np.array([bool(right[texts == name][0]) for name in names])


def test_where_all_texts_differ_a_blind_scorer_is_random_choice():
    right = np.arange(300) < 120
    found = distinct_text_accuracies(np.arange(300), right, [1, 64, 300], draws=1, seed=0)
    assert found == pytest.approx([0.4] * 3)


def test_a_text_with_several_labels_counts_by_most_of_its_samples():
    right = np.array([True, True, False, False])  # a is right in two of three, b is wrong
    assert distinct_text_accuracies(np.array([0, 0, 0, 1]), right, [4], draws=1, seed=0) == [0.5]
