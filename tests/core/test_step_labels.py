from typing import Any

import pytest

from freeprm.core.step_labels import first_error, labelled_steps, steps_of
from freeprm.errors import DataError
from freeprm.types import Rollout


def rollout(response: str, **extra: Any) -> Rollout:
    return Rollout(problem_id="a", sample_idx=0, prompt="?", response=response, extra=extra)


def test_steps_are_those_given_else_those_found():
    assert steps_of(rollout("a b\nc", steps=["a b\n", "c"])) == ["a b\n", "c"]
    assert steps_of(rollout("Step 1: a\nStep 2: b")) == ["Step 1: a", "Step 2: b"]
    assert steps_of(rollout("a\n\nb\nc")) == ["a", "b\nc"]


def test_the_number_of_labels_decides_how_a_response_is_cut():
    # `auto` cuts at the blank line; as one step, as `step_markers` has it, one label is enough.
    assert labelled_steps(rollout("a\n\nb", step_labels=[False])).steps == ["a\n\nb"]
    assert labelled_steps(rollout("a\n\nb\nc", step_labels=[True, None, False])).steps == ["a", "b", "c"]


def test_steps_come_with_their_labels():
    labelled = labelled_steps(rollout("a\nb\nc", steps=["a", "b", "c"], step_labels=[True, None, False]))
    assert labelled.labels == [True, None, False]
    assert labelled.first_error == 2
    assert labelled.known() == (["a"], [True])


@pytest.mark.parametrize(
    ("error", "labels"),
    [(None, [True, True, True]), (0, [False, None, None]), (1, [True, False, None]), (2, [True, True, False])],
)
def test_the_first_error_tells_of_itself_and_what_comes_before(error: int | None, labels: list[bool | None]):
    labelled = labelled_steps(rollout("a\nb\nc", steps=["a", "b", "c"], first_error=error))
    assert labelled.labels == labels
    assert labelled.first_error == error


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (rollout("a"), "responses without step labels"),
        (rollout("", step_labels=[]), "empty responses"),
        (
            rollout("a", steps=["a"], step_labels=[True, True]),
            "responses with another number of steps than step labels",
        ),
        (rollout("a", first_error=1), "responses whose first_error is none of their steps"),
        (rollout("a", first_error=True), "responses whose first_error is none of their steps"),
    ],
)
def test_what_is_not_known_is_refused_with_a_reason_that_can_be_counted(row: Rollout, reason: str):
    with pytest.raises(DataError, match=f"^{reason}$"):
        labelled_steps(row)


def test_an_unknown_step_is_no_error():
    assert first_error([True, None, False]) == 2
    assert first_error([True, None]) is None
    assert first_error([]) is None
