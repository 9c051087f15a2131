from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest

from freeprm.core.candidates import Candidates, candidates, merge_scorers
from freeprm.core.selectors import Selector, bounds, choose
from freeprm.core.voting import best_of_n, majority, sigmoid, weighted_vote
from freeprm.types import Rollout

#            0    1     2    3    4
ANSWERS = ["4", "5", None, "4", "5"]  # 5 is right
SCORES = [0.5, 2.0, 3.0, 0.5, -4.0]
WEIGH = {"s": sigmoid}


def problem(scores: list[float | None] | None = None) -> Candidates:
    rows = [
        Rollout(
            problem_id="p", sample_idx=index, prompt="q", response=str(index), pred=answer, correct=answer == "5",
            scorer="s", score=score,
        )
        for index, (answer, score) in enumerate(zip(ANSWERS, scores or SCORES, strict=True))
    ]  # fmt: skip
    return candidates(merge_scorers(rows)[0], aggregators=(), key=lambda answer: answer)


def test_all_samples_give_what_the_plain_functions_give():
    found = choose(problem(), None, weigh=WEIGH)
    assert found[Selector("s", "best_of_n/score")].sample == best_of_n(SCORES) == 2
    weights = sigmoid(np.array(SCORES)).tolist()
    # 4: twice sigmoid(.5) = 1.245; 5: sigmoid(2) + sigmoid(-4) = 0.899
    assert weighted_vote(ANSWERS, weights) == "4"
    assert found[Selector("s", "weighted_vote/score")].sample == 0
    assert majority(ANSWERS) == "4"
    assert found[Selector(None, "majority")].sample == 0  # the first, though 4 and 5 have two votes each
    assert (found[Selector(None, "majority")].accuracy, found[Selector(None, "majority")].tied) == (0.5, 1.0)


@pytest.mark.parametrize("n", range(1, 6))
def test_accuracies_are_means_over_all_subsets(n: int):
    subsets = list(combinations(range(5), n))
    weights = sigmoid(np.array(SCORES))
    best = [ANSWERS[s[best_of_n([SCORES[i] for i in s])]] == "5" for s in subsets]
    counts = [Counter(ANSWERS[i] for i in s if ANSWERS[i]) for s in subsets]
    tops = [[answer for answer in votes if votes[answer] == max(votes.values())] for votes in counts]
    vote = [top.count("5") / max(len(top), 1) for top in tops]
    weighted = [weighted_vote([ANSWERS[i] for i in s], weights[list(s)].tolist()) == "5" for s in subsets]
    found = choose(problem(), n, weigh=WEIGH)
    assert found[Selector("s", "best_of_n/score")].accuracy == pytest.approx(np.mean(best))
    assert found[Selector(None, "majority")].accuracy == pytest.approx(np.mean(vote))
    assert found[Selector(None, "majority")].tied == pytest.approx(np.mean([len(top) > 1 for top in tops]))
    assert found[Selector("s", "weighted_vote/score")].accuracy == pytest.approx(np.mean(weighted))


@pytest.mark.parametrize("n", range(1, 6))
def test_the_first_n_are_a_problem_of_n_samples(n: int):
    found = choose(problem(), n, weigh=WEIGH, subsets="first")
    assert found[Selector("s", "best_of_n/score")].sample == best_of_n(SCORES[:n])
    winner = majority(ANSWERS[:n])
    sample = found[Selector(None, "majority")].sample
    assert sample is not None
    assert ANSWERS[sample] == winner


def test_one_sample_is_random_choice_but_for_missing_answers():
    found = choose(problem(), 1, weigh=WEIGH)
    assert found[Selector("s", "best_of_n/score")].accuracy == pytest.approx(2 / 5)
    names = ("oracle", "random", "random_distinct_text")
    assert bounds(problem(), [1])[1] == pytest.approx({Selector(None, name): 0.4 for name in names})


def test_bounds_enclose_every_choice():
    limits = bounds(problem(), range(1, 6))
    for n in range(1, 6):
        for choice in choose(problem(), n, weigh=WEIGH).values():
            assert choice.accuracy <= limits[n][Selector(None, "oracle")] + 1e-12


def test_the_first_n_have_bounds_of_their_own():
    found = bounds(problem(), [1, 2], subsets="first")
    assert set(found[1].values()) == {0.0}
    # 0 is wrong, 1 is right, and their texts differ
    assert {selector.name: value for selector, value in found[2].items()} == {
        "oracle": 1.0, "random": 0.5, "random_distinct_text": 0.5,
    }  # fmt: skip


def test_a_scorer_that_only_knows_texts_is_the_null():
    # a right text three times, two wrong ones once: any scorer of distinct, unrelated scores is right on average as
    # often as the distinct texts are, over all orders of those scores
    texts, labels = ["a", "a", "b", "a", "c"], {"a": True, "b": False, "c": False}
    for n in range(1, 6):
        found = []
        for order in permutations((1.0, 2.0, 3.0)):
            score = dict(zip("abc", order, strict=True))
            rows = [
                Rollout(
                    problem_id="p", sample_idx=index, prompt="q", response=text, pred=text, correct=labels[text],
                    scorer="s", score=score[text],
                )
                for index, text in enumerate(texts)
            ]  # fmt: skip
            blind = candidates(merge_scorers(rows)[0], aggregators=(), key=lambda answer: answer)
            choice = choose(blind, n, weigh=WEIGH)[Selector("s", "best_of_n/score")]
            assert choice.tied == 0  # equal scores are of one text
            found.append(choice.accuracy)
        assert np.mean(found) == pytest.approx(bounds(blind, [n])[n][Selector(None, "random_distinct_text")])


def test_a_scorer_chooses_among_what_it_scored_and_is_left_out_where_that_is_too_little():
    scored = problem([0.5, None, 3.0, None, None])
    assert Selector("s", "best_of_n/score") not in choose(scored, 3, weigh=WEIGH)
    found = choose(scored, None, weigh=WEIGH)
    assert found[Selector("s", "best_of_n/score")].samples.tolist() == [0, 2]
    assert found[Selector(None, "majority")].samples.tolist() == [0, 1, 2, 3, 4]


def test_where_no_response_has_an_answer_nothing_is_chosen():
    row = Rollout(problem_id="p", sample_idx=0, prompt="q", response="r", correct=True)
    alone = candidates(merge_scorers([row])[0], aggregators=(), key=lambda answer: answer)
    choice = choose(alone, None, weigh=WEIGH)[Selector(None, "majority")]
    assert (choice.sample, choice.accuracy) == (None, 0.0)
