from itertools import combinations
from math import comb

import numpy as np
import pytest

from freeprm.core import subsets
from freeprm.core.subsets import (
    Flags,
    Indices,
    best_of_n_chances,
    distinct_text_accuracies,
    draw_subsets,
    vote_chances,
)
from freeprm.core.voting import WEIGHTINGS, raw, uniform
from freeprm.errors import DataError, NonFiniteError


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
