from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats._reading import read_records
from freeprm.formats.prmbench import PLUGIN
from freeprm.io.rows import Source, write_rows
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {
    "original_question": "What is 2 + 3?", "modified_question": "What is 2 + 3, roughly?",
    "original_process": ["1. 2 + 3 = 5.", "2. So 5."],
    "modified_process": ["1. Let us see.", "2. 2 + 3 = 6.", "3. 6 - 1 = 4.", "4. Done."],
    "modified_steps": [1, 2, 3], "error_steps": [2, 3], "reason": "a slip", "idx": "confidence_p1_0",
    "question": "What is 2 + 3?", "classification": "confidence",
}  # fmt: skip
FORMAT = PLUGIN()


def test_both_solutions_are_read_with_their_wrong_steps(here: Source):
    original, modified = FORMAT.read(ROW, here)
    assert (original.prompt, modified.prompt) == ("What is 2 + 3?", "What is 2 + 3, roughly?")
    assert original.extra["step_labels"] == [True, True]
    assert original.extra["first_error"] is None
    assert modified.extra["step_labels"] == [True, False, False, True]
    assert modified.extra["first_error"] == 1  # the steps are counted from 1 in the row
    assert modified.response == "1. Let us see.\n2. 2 + 3 = 6.\n3. 6 - 1 = 4.\n4. Done."
    assert (original.problem_id, modified.problem_id) == (
        "confidence/confidence_p1_0/original", "confidence/confidence_p1_0/modified",
    )  # fmt: skip
    assert original.correct is modified.correct is None


def test_originals_are_left_out_where_asked(here: Source):
    assert [one.extra["variant"] for one in PLUGIN(originals=False).read(ROW, here)] == ["modified"]


def test_a_modification_without_an_error_has_none(here: Source):
    row = {**ROW, "error_steps": [], "classification": "multi_solutions"}
    _, modified = FORMAT.read(row, here)
    assert modified.extra["first_error"] is None
    assert FORMAT.write(group_rollouts(list(FORMAT.read(row, here)))).rows == [row]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error_steps": [0]}, "error_steps: is .*; expected a list of whole numbers from 1 to 4"),
        ({"error_steps": [5]}, "error_steps: is"),
        ({"error_steps": 2}, "error_steps: is 2"),
        ({"error_steps": [True]}, "error_steps: is"),
        ({"modified_process": "text"}, "modified_process: is 'text'; expected a list of texts"),
        ({"original_question": None}, "original_question: is None; expected text"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_rows_are_written_back_as_they_were(tmp_path: Path):
    rows = [ROW, {**ROW, "idx": "circular_p1_0", "classification": "circular", "error_steps": [4]}]
    write_rows(tmp_path / "rows.jsonl", rows)
    written = FORMAT.write(group_rollouts(read_records([tmp_path / "rows.jsonl"]).rollouts))
    assert (written.rows, written.skipped.total()) == (rows, 0)


def test_our_own_wrong_rollouts_stand_beside_a_right_one(graded: list[Group], here: Source):
    written = FORMAT.write(graded)
    flawless = [[r for r in group.rollouts if r.extra["first_error"] is None] for group in graded]
    flawed = [[r for r in group.rollouts if r.extra["first_error"] is not None] for group in graded]
    expected = [rollout for good, bad in zip(flawless, flawed, strict=True) if good for rollout in bad]
    back = [list(FORMAT.read(row, here)) for row in written.rows]
    assert [modified.response for _, modified in back] == [rollout.response for rollout in expected]
    assert [modified.extra["step_labels"] for _, modified in back] == [one.extra["step_labels"] for one in expected]
    n_used = len(expected) + sum(bool(good and bad) for good, bad in zip(flawless, flawed, strict=True))
    assert written.skipped == {"responses without a counterpart": sum(len(one.rollouts) for one in graded) - n_used}


def test_rollouts_without_step_labels_throughout_are_refused():
    with pytest.raises(DataError, match="needs problems with a response without a wrong step, and one with one"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=True)]))


def test_mistakes_of_one_kind_are_one_reason_however_many_steps_a_row_has(here: Source):
    reasons = set()
    for steps in (["a"], ["a", "b"], ["a", "b", "c"]):
        with pytest.raises(RecordError, match=f"expected a list of whole numbers from 1 to {len(steps)}$") as raised:
            list(FORMAT.read({**ROW, "modified_process": steps, "error_steps": [9]}, here))
        reasons.add(raised.value.reason)
    assert reasons == {"error_steps is not a list of whole numbers from 1 to n"}
