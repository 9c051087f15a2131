from pathlib import Path
from typing import Any

import pytest

from freeprm.core.steps import given_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats.prm800k_solutions import PLUGIN
from freeprm.io.files import read_rows
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {
    "prompt": "What is 2 + 3?", "steps": ["Let us see.", "2 + 3 = 5.", "So 6.", "Yes."], "ratings": [0, None, -1, None],
    "human_steps": [1], "first_error": 2, "pred": "6",
}  # fmt: skip
FORMAT = PLUGIN()


def test_ratings_become_labels(here: Source):
    (rollout,) = FORMAT.read(ROW, here)
    assert rollout.extra["step_labels"] == [True, True, False, None]
    assert rollout.extra["first_error"] == 2
    assert (rollout.pred, rollout.correct) == ("6", None)
    assert next(iter(PLUGIN(neutral=False).read(ROW, here))).extra["first_error"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": [1]}, "ratings: has 1 for 4 steps"),
        ({"ratings": [1, 1, 1, 2]}, "ratings: is .*; expected -1, 0, 1 or null for each step"),
        ({"ratings": [1, 1, 1, True]}, "ratings: is"),
        ({"steps": []}, "steps: is"),
        ({"human_steps": [4]}, "human_steps: is .*; expected a list of indices below 4, from 0"),
        ({"human_steps": False}, "human_steps: is False"),
        ({"prompt": None}, "prompt: is None"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_our_own_graded_rollouts_come_back_the_same(graded: list[Group], here: Source):
    ours = [rollout for one in graded for rollout in one.rollouts]
    back = [rollout for row in FORMAT.write(graded).rows for rollout in FORMAT.read(row, here)]
    assert [(one.response, one.pred) for one in back] == [(one.response, one.pred) for one in ours]
    assert [one.extra["step_labels"] for one in back] == [one.extra["step_labels"] for one in ours]


def test_rollouts_without_step_labels_throughout_are_refused():
    with pytest.raises(DataError, match="needs step labels"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=True)]))


def test_the_real_rows_are_read_whole_and_written_back(real_data: Path):
    rows = list(read_rows(real_data / "prm800k_phase1" / "train_solutions.jsonl"))
    assert len(rows) == 808
    for source, row in rows:
        assert isinstance(row, dict)
        assert FORMAT.recognises(row)
        (rollout,) = FORMAT.read(row, source)
        assert (-1 if rollout.extra["first_error"] is None else rollout.extra["first_error"]) == row["first_error"]
        assert FORMAT.write(group_rollouts([rollout])).rows == [row]
        given_steps(rollout.response, rollout.extra["steps"])
