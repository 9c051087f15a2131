from itertools import combinations
from math import comb

import numpy as np
import pytest

from freeprm.core.subsets import best_of_n_chances, draw_subsets, vote_chances
from freeprm.core.voting import WEIGHTINGS, best_of_n, raw, uniform, weighted_vote
from freeprm.errors import DataError, NonFiniteError


def test_best_of_two_of_three_falls_on_the_best_in_two_of_three_subsets():
    # {0,1}: 1 is best, {0,2}: 2 is best, {1,2}: 2 is best
    assert best_of_n_chances(np.array([0.1, 0.2, 0.3]), 2) == pytest.approx([0, 1 / 3, 2 / 3])


@pytest.mark.parametrize("n", range(1, 8))
def test_best_of_n_chances_are_the_mean_over_all_subsets_ties_included(n: int):
    scores = np.array([0.5, 0.9, 0.1, 0.9, 0.5, 0.5, -1.0])
    counts = np.zeros(7)
    for subset in combinations(range(7), n):
        counts[subset[best_of_n(scores[list(subset)].tolist())]] += 1
    assert best_of_n_chances(scores, n) == pytest.approx(counts / comb(7, n))


@pytest.mark.parametrize("count", [1, 2, 64, 1000])
def test_best_of_n_chances_sum_to_one(count: int):
    scores = np.random.default_rng(0).normal(size=count)
    for n in (1, (count + 1) // 2, count):
        assert best_of_n_chances(scores, n).sum() == pytest.approx(1.0)


def test_best_of_all_is_best_of_n_with_certainty():
    scores = np.array([0.5, 0.9, 0.9])
    assert best_of_n_chances(scores, 3).tolist() == [0.0, 1.0, 0.0]


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
    subsets = draw_subsets(8, 4, draws=70, seed=0)  # C(8, 4) = 70
    assert sorted(map(tuple, subsets)) == list(combinations(range(8), 4))


def test_drawn_subsets_are_ascending_distinct_and_repeat_with_their_seed():
    subsets = draw_subsets(64, 16, draws=200, seed=3)
    assert subsets.shape == (200, 16)
    assert (np.diff(subsets, axis=1) > 0).all()
    draw_subsets.cache_clear()
    assert (draw_subsets(64, 16, draws=200, seed=3) == subsets).all()
    assert (draw_subsets(64, 16, draws=200, seed=4) != subsets).any()


def test_every_sample_is_drawn_about_equally_often():
    subsets = draw_subsets(10, 3, draws=100, seed=0)
    times = np.bincount(subsets.ravel(), minlength=10)
    assert abs(times - 30).max() < 4 * np.sqrt(100 * 0.3 * 0.7)  # binomial(100, 0.3), four standard deviations


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("n", [1, 3, 6])
def test_vote_chances_are_weighted_votes_on_every_subset(name: str, n: int):
    rng = np.random.default_rng(1)
    for _ in range(20):
        answers = [None if a == 3 else "abc"[a] for a in rng.integers(0, 4, 6)]
        scores = rng.integers(-2, 3, 6) / 2  # ties and negative totals are common
        subsets = draw_subsets(6, n, draws=1000, seed=0)
        expected = np.zeros(6)
        for subset in subsets:
            here = [answers[i] for i in subset]
            winner = weighted_vote(here, WEIGHTINGS[name](scores[subset]).tolist())
            if winner is not None:
                expected[subset[here.index(winner)]] += 1
        names = {answer: index for index, answer in enumerate(dict.fromkeys(answers))}
        found = vote_chances(
            np.array([names[answer] for answer in answers]),
            np.array([answer is not None for answer in answers]),
            scores,
            weigh=WEIGHTINGS[name],
            subsets=subsets,
        )
        assert found == pytest.approx(expected / len(subsets))


def test_an_answer_nobody_in_the_subset_gave_does_not_beat_negative_votes():
    subsets = np.array([[0, 1]])  # answers 0, 0 with -1 each; answer 1, of sample 2, is not among them
    chances = vote_chances(
        np.array([0, 0, 1]), np.ones(3, bool), np.array([-1.0, -1.0, 5.0]), weigh=raw, subsets=subsets
    )
    assert chances.tolist() == [1.0, 0.0, 0.0]


def test_a_subset_without_voters_chooses_nothing():
    chances = vote_chances(
        np.array([0, 1]), np.array([False, True]), np.zeros(2), weigh=uniform, subsets=np.array([[0], [1]])
    )
    assert chances.tolist() == [0.0, 0.5]
