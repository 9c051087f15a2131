from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats.prm800k_candidates import PLUGIN
from freeprm.io.files import read_rows
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {
    "instruction": "What is 2 + 3?", "responses": ["Let us see."], "next_response": "2 + 3 = 6.", "answer": None,
    "is_human_response": False, "is_solution": False, "is_preferred_response": False, "rating": -1.0,
    "error_reason": None,
}  # fmt: skip
FORMAT = PLUGIN()


def test_only_the_candidate_has_a_label(here: Source):
    (rollout,) = FORMAT.read(ROW, here)
    assert rollout.response == "Let us see.\n2 + 3 = 6."
    assert rollout.extra["step_labels"] == [None, False]
    assert (rollout.correct, rollout.answer, rollout.truncated) == (None, None, True)


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"rating": 1}, True), ({"rating": 0}, True), ({"rating": None}, None),
        ({"rating": None, "is_human_response": True}, True),
    ],
)  # fmt: skip
def test_the_label_is_the_rating(change: dict[str, Any], label: bool | None, here: Source):
    (rollout,) = FORMAT.read({**ROW, **change}, here)
    assert rollout.extra["step_labels"][-1] is label


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rating": 2}, "rating: is 2; expected -1, 0, 1 or null"),
        ({"responses": None}, "responses: is None"),
        ({"responses": [""]}, "responses: is"),
        ({"next_response": None}, "next_response: is None; expected text"),
        ({"is_solution": "yes"}, "is_solution: is 'yes'; expected true or false"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_each_labelled_step_of_ours_has_a_row(graded: list[Group], here: Source):
    ours = [rollout for one in graded for rollout in one.rollouts]
    rows = FORMAT.write(graded).rows
    labels = [label for rollout in ours for label in rollout.extra["step_labels"]]
    assert [row["rating"] == 1 for row in rows] == labels
    back = [next(iter(FORMAT.read(row, here))) for row in rows]
    assert [one.extra["step_labels"][-1] for one in back] == labels
    whole = [row for row in rows if row["is_solution"]]
    assert len(whole) == sum(bool(rollout.correct) for rollout in ours)


def test_rollouts_without_step_labels_throughout_are_refused():
    with pytest.raises(DataError, match="needs step labels"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=True)]))


def test_the_real_rows_are_written_back_as_they_were(real_data: Path):
    count = 0
    for count, (source, row) in enumerate(read_rows(real_data / "prm800k_phase1" / "train_step_candidates.parquet"), 1):
        assert isinstance(row, dict)
        assert FORMAT.recognises(row)
        assert FORMAT.write(group_rollouts(list(FORMAT.read(row, source)))).rows == [row]
        if count == 5000:
            break
    assert count == 5000
