import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeprm.core.voting import WEIGHTINGS, best_of_n, majority, pass_at_k, weighted_vote, weighting
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
