from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest

from freeprm.core.selectors import (
    UNNAMED,
    WHOLE,
    Candidates,
    Selector,
    SelectorAtN,
    accuracy_metrics,
    bounds,
    candidates,
    choose,
    difference_metrics,
    merge_scorers,
    problems_by_value,
)
from freeprm.core.voting import best_of_n, majority, sigmoid, weighted_vote
from freeprm.errors import DataError
from freeprm.types import Rollout


def row(sample_idx: int, **columns) -> Rollout:
    return Rollout(problem_id="p", sample_idx=sample_idx, prompt="q", response=f"r{sample_idx}", **columns)


def gather(*rows: Rollout, aggregators: tuple[str, ...] = ("min",)) -> Candidates:
    (samples,) = merge_scorers(rows)
    return candidates(samples, aggregators=aggregators, key=lambda answer: answer)


def test_rows_of_several_scorers_are_one_sample():
    found = gather(
        row(1, scorer="a", step_scores=(0.5, 0.25)),
        row(0, scorer="a", step_scores=(0.75,)),
        row(0, scorer="b", step_scores=(2.0, 3.0)),
    )
    assert [rollout.sample_idx for rollout in found.rollouts] == [0, 1]
    assert found.scores["a", "min"].values.tolist() == [0.75, 0.25]
    assert found.scores["b", "min"].samples.tolist() == [0]


def test_rows_without_scores_are_samples_all_the_same():
    found = gather(row(0), row(1, score=0.5), row(0, score=0.25))
    assert len(found.rollouts) == 2
    assert found.scores[UNNAMED, WHOLE].values.tolist() == [0.25, 0.5]


def test_a_sample_takes_its_answer_and_label_from_whichever_row_has_them():
    found = gather(row(0, scorer="a", score=1.0), row(0, scorer="b", score=1.0, pred="4", correct=True))
    assert found.rollouts[0].pred == "4"
    assert found.correct.tolist() == [True]


def test_problems_come_in_order_of_first_appearance():
    rows = [Rollout(problem_id=name, sample_idx=0, prompt="q", response="r") for name in ("b", "a", "c")]
    assert [samples[0].rollout.problem_id for samples in merge_scorers(rows)] == ["b", "a", "c"]


def test_rows_of_one_sample_with_two_responses_are_refused():
    other = Rollout(problem_id="p", sample_idx=0, prompt="q", response="another", scorer="b")
    with pytest.raises(DataError, match="problem 'p', sample 0, scorer 'b': another response"):
        merge_scorers([row(0, scorer="a"), other])


def test_rows_of_one_sample_with_two_labels_are_refused():
    with pytest.raises(DataError, match="correct in one row"):
        merge_scorers([row(0, scorer="a", correct=True), row(0, scorer="b", correct=False)])


def test_equal_answers_share_a_group_and_missing_ones_do_not_vote():
    found = gather(row(0, pred="4"), row(1), row(2, pred="5"), row(3, pred="4"))
    assert found.groups[0] == found.groups[3] != found.groups[2]
    assert found.has_answer.tolist() == [True, False, True, True]


def test_an_answer_is_what_most_of_its_labels_say_and_not_correct_on_ties():
    found = gather(
        *(row(index, pred="4", correct=label) for index, label in enumerate([True, True, False, None])),
        *(row(index, pred="5", correct=label) for index, label in enumerate([True, False], 4)),
        row(6, correct=True),
    )
    assert found.correct.tolist() == [True, True, False, False, True, False, True]
    assert found.answer_correct.tolist() == [True, True, True, True, False, False, False]
    assert found.n_mixed_answers == 2


def test_scores_that_an_aggregator_refuses_are_named_with_their_sample():
    with pytest.raises(DataError, match="problem 'p', sample 1, scorer 'a': prod: step 0"):
        gather(
            row(0, scorer="a", step_scores=(0.5,)), row(1, scorer="a", step_scores=(-0.5,)), aggregators=("min", "prod")
        )


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


MAJORITY = SelectorAtN(Selector(None, "majority"), 4)
A = SelectorAtN(Selector("a", "best_of_n/min"), 4)
B = SelectorAtN(Selector("b", "best_of_n/min"), 4)
TABLE = {
    MAJORITY: {"p": 0.0, "q": 0.5, "r": 1.0},
    A: {"p": 1.0, "q": 0.5, "r": 1.0},
    B: {"p": 0.5, "q": 0.5},  # has not scored r
}


def test_a_metric_has_value_interval_count_and_who_chose():
    first = next(accuracy_metrics(TABLE, seed=7))
    assert (first.metric, first.scorer, first.selector, first.n) == ("accuracy", None, "majority", 4)
    assert first.value == pytest.approx(0.5)
    assert (first.count, first.seed) == (3, 7)
    assert first.low is not None
    assert first.high is not None
    assert 0.0 <= first.low <= 0.5 <= first.high <= 1.0


def test_a_breakdown_averages_over_its_problems_only_and_leaves_out_empty_cells():
    found = list(accuracy_metrics(TABLE, seed=0, problems=frozenset("r"), group="level=3"))
    assert [(m.scorer, m.value, m.count, m.group) for m in found] == [
        (None, 1.0, 1, "level=3"), ("a", 1.0, 1, "level=3"),
    ]  # fmt: skip


def test_differences_are_over_the_problems_that_both_have():
    found = {(m.scorer, m.selector): m for m in difference_metrics(TABLE, seed=0)}
    assert set(found) == {
        ("a", "best_of_n/min - majority"), ("b", "best_of_n/min - majority"), ("a - b", "best_of_n/min"),
    }  # fmt: skip
    assert found["a", "best_of_n/min - majority"].value == pytest.approx(1 / 3)  # (1 + 0 + 0) / 3
    assert found["a - b", "best_of_n/min"].value == pytest.approx(0.25)  # (0.5 + 0) / 2
    assert found["a - b", "best_of_n/min"].count == 2


def test_scorers_are_compared_with_the_same_selector_or_with_one_score_a_response():
    names = ("best_of_n/min", "best_of_n/mean", "weighted_vote/min")
    cells = [SelectorAtN(Selector("steps", name), 2) for name in names]
    cells += [
        SelectorAtN(Selector("whole", "best_of_n/score"), 2),
        SelectorAtN(Selector("whole", "best_of_n/score"), 4),
    ]
    found = [(m.scorer, m.selector, m.n) for m in difference_metrics({cell: {"p": 1.0} for cell in cells}, seed=0)]
    assert found == [
        ("steps - whole", "best_of_n/min - best_of_n/score", 2),
        ("steps - whole", "best_of_n/mean - best_of_n/score", 2),
    ]


def test_problems_are_gathered_by_value():
    assert problems_by_value({"p": 2, "q": 1, "r": 2}, "level") == {
        "level=1": frozenset("q"), "level=2": frozenset("pr"),
    }  # fmt: skip
