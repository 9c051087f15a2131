import pytest

from freeprm.core.candidates import UNNAMED, WHOLE, Candidates, candidates, merge_scorers
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
