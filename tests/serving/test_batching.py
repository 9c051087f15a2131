"""What is scored together, and what becomes of requests that are bad, too many, given up or late."""

import pytest

from freeprm.errors import DataError, ModelError
from freeprm.scorers.base import DEFAULT_SCORING, ScoringOptions, rollouts_of
from freeprm.serving.batching import Batch, Batcher, BusyError, NotReadyError
from held import Held
from patience import PATIENCE


def held_batcher(**limits: int) -> tuple[Held, Batcher, list[Batch]]:
    """A batcher that is at work on a first request, and held there."""
    scorer, seen = Held(), list[Batch]()
    batcher = Batcher(lambda: scorer, **{"max_batch": 64, "max_waiting": 64, **limits}, scored=seen.append)
    batcher.wait_until_loaded()
    scorer.go.clear()
    batcher.submit(rollouts_of("first", ["a"]), DEFAULT_SCORING)
    assert scorer.entered.wait(PATIENCE)
    return scorer, batcher, seen


def test_what_came_while_the_model_worked_is_one_batch_with_equal_prompts_together():
    scorer, batcher, seen = held_batcher()
    asked = [batcher.submit(rollouts_of(prompt, [f"{prompt}{n}"]), DEFAULT_SCORING) for n, prompt in enumerate("xyx")]
    scorer.go.set()
    assert [one.result(PATIENCE)[0].score for one in asked] == [2.0, 2.0, 2.0]
    batcher.close()
    assert scorer.batches == [[("first", "a")], [("x", "x0"), ("x", "x2"), ("y", "y1")]]
    assert [(batch.n_requests, batch.n_responses) for batch in seen] == [(1, 1), (3, 3)]


def test_each_request_gets_its_own_scores_in_its_own_order():
    scorer, batcher, _ = held_batcher()
    one = batcher.submit(rollouts_of("x", ["aaa", "b"]), DEFAULT_SCORING)
    other = batcher.submit(rollouts_of("x", ["cc"]), DEFAULT_SCORING)
    scorer.go.set()
    assert [item.score for item in one.result(PATIENCE)] == [3.0, 1.0]
    assert [item.score for item in other.result(PATIENCE)] == [2.0]
    batcher.close()


def test_other_options_make_another_batch_and_a_batch_has_its_size():
    scorer, batcher, _ = held_batcher(max_batch=2)
    options = ScoringOptions(too_long="error")
    for prompt, kind in zip("abcd", [DEFAULT_SCORING, options, DEFAULT_SCORING, DEFAULT_SCORING], strict=True):
        batcher.submit(rollouts_of(prompt, ["r"]), kind)
    batcher.submit(rollouts_of("e", ["r", "s", "t"]), options)  # larger than a batch, so alone
    scorer.go.set()
    batcher.close()
    assert ["".join(dict(batch)) for batch in scorer.batches] == ["first", "ac", "b", "d", "e"]
    assert scorer.options == [DEFAULT_SCORING, DEFAULT_SCORING, options, DEFAULT_SCORING, options]


def test_a_response_that_cannot_be_scored_fails_its_own_request_alone():
    scorer, batcher, _ = held_batcher()
    asked = [batcher.submit(rollouts_of("x", [text]), DEFAULT_SCORING) for text in ("a", "b", "bad", "d", "e")]
    scorer.go.set()
    with pytest.raises(DataError, match="sample 0: bad"):
        asked[2].result(PATIENCE)
    assert [one.result(PATIENCE)[0].score for one in asked if one is not asked[2]] == [1.0] * 4
    batcher.close()


def test_a_fault_of_ours_fails_the_batch_and_the_next_one_is_scored():
    scorer, batcher, _ = held_batcher()
    broken = batcher.submit(rollouts_of("x", ["broken"]), DEFAULT_SCORING)
    scorer.go.set()
    with pytest.raises(ZeroDivisionError):
        broken.result(PATIENCE)
    assert batcher.submit(rollouts_of("x", ["aa"]), DEFAULT_SCORING).result(PATIENCE)[0].score == 2.0
    batcher.close()


def test_a_full_queue_refuses_and_says_when_to_try_again():
    scorer, batcher, _ = held_batcher(max_waiting=3)
    kept = batcher.submit(rollouts_of("x", ["a", "b"]), DEFAULT_SCORING)  # with the first one three
    with pytest.raises(BusyError) as refused:
        batcher.submit(rollouts_of("x", ["c"]), DEFAULT_SCORING)
    assert refused.value.seconds >= 1
    assert batcher.n_waiting == 3
    scorer.go.set()
    kept.result(PATIENCE)
    batcher.close()
    assert batcher.n_waiting == 0


def test_a_request_that_nobody_waits_for_any_more_is_not_scored():
    scorer, batcher, _ = held_batcher()
    given_up = batcher.submit(rollouts_of("x", ["a"]), DEFAULT_SCORING)
    assert given_up.cancel()
    scorer.go.set()
    batcher.close()
    assert scorer.batches == [[("first", "a")]]
    assert batcher.n_waiting == 0


def test_closing_finishes_what_was_accepted_and_takes_nothing_more():
    scorer, batcher, _ = held_batcher()
    accepted = batcher.submit(rollouts_of("x", ["abc"]), DEFAULT_SCORING)
    scorer.go.set()
    batcher.close()
    assert accepted.result(0)[0].score == 3.0
    with pytest.raises(NotReadyError, match="is ending"):
        batcher.submit(rollouts_of("x", ["a"]), DEFAULT_SCORING)


def test_a_model_that_cannot_be_loaded_is_told_to_all():
    def load() -> Held:
        raise ModelError("no such folder")

    batcher = Batcher(load, max_batch=1, max_waiting=1)
    with pytest.raises(ModelError, match="no such folder"):
        batcher.wait_until_loaded()
    with pytest.raises(NotReadyError, match="could not be loaded: no such folder"):
        batcher.submit(rollouts_of("x", ["a"]), DEFAULT_SCORING)
    batcher.close()
