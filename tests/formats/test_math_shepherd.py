from typing import Any

import pytest

from freeprm.core.steps import given_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats._reading import read_records
from freeprm.formats.math_shepherd import PLUGIN
from freeprm.io.files import read_rows
from freeprm.io.rows import Source, write_rows
from freeprm.types import Group, Rollout, group_rollouts

ROW = {
    "input": "What is 2 + 3? Step 1: 2 + 3 = 6. ки\nStep 2: So it is 6.\nThe answer is: 6 ки",
    "label": "What is 2 + 3? Step 1: 2 + 3 = 6. -\nStep 2: So it is 6.\nThe answer is: 6 +",
    "task": "GSM8K",
}  # fmt: skip
FORMAT = PLUGIN()


def read(row: dict[str, Any], here: Source) -> Rollout:
    (rollout,) = FORMAT.read(row, here)
    return rollout


def group(*rollouts: Rollout) -> list[Group]:
    return group_rollouts(rollouts)


def test_a_row_becomes_a_question_and_labelled_steps(here: Source):
    rollout = read(ROW, here)
    assert rollout.prompt == "What is 2 + 3?"
    assert rollout.response == "Step 1: 2 + 3 = 6.\nStep 2: So it is 6.\nThe answer is: 6"
    assert rollout.correct is None  # the last step's label is an estimate, not the outcome
    assert rollout.extra == {
        "steps": ["Step 1: 2 + 3 = 6.", "Step 2: So it is 6.\nThe answer is: 6"],
        "step_labels": [False, True], "first_error": 0, "task": "GSM8K",
    }  # fmt: skip


def test_rows_with_one_question_are_one_problem(here: Source):
    other = {name: text.replace("6.", "5.") for name, text in ROW.items()}
    assert read(ROW, here).problem_id == read(other, here).problem_id
    assert (
        read(ROW, here).problem_id
        != read({**ROW, "input": "x" + ROW["input"], "label": "x" + ROW["label"]}, here).problem_id
    )


def test_labels_by_themselves_are_read_as_well(here: Source):
    row = {"input": ROW["input"], "value": ["-", "+"]}
    assert FORMAT.recognises(row)
    assert read(row, here).extra["step_labels"] == [False, True]
    (written,) = FORMAT.write(group(read(row, here))).rows
    assert written == {**{name: ROW[name] for name in ("input", "label")}, "value": ["-", "+"]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": "What is 2 + 3?"}, "input has no 'Step 1:'"),
        ({"input": "Q Step 1: a ки\nStep 1: b ки"}, "input has more than one 'Step 1:'"),
        ({"input": "Q Step 1: a ки\nStep 2: b"}, "input has a step without its tag, or a tag without its step"),
        ({"input": "Q Step 1: a\nStep 2: b ки"}, "input has a step without its tag, or a tag without its step"),
        ({"input": "Q Step 1: a ки\nки"}, "input has a step without its tag, or a tag without its step"),
        ({"input": " Step 1: a ки"}, "input has no question, or a tag in it"),
        ({"input": 3}, "input is not text"),
        ({"label": ROW["input"]}, "label is not the text of `input` with + or - in place of each ки"),
        ({"label": ROW["label"][:-1]}, "label is not the text of `input` with + or - in place of each ки"),
        ({"label": ROW["label"] + " more"}, "label is not the text of `input` with + or - in place of each ки"),
        ({"label": None}, "label is not the text of `input` with + or - in place of each ки"),
        ({"value": ["+", "+"]}, "value is not the labels that `label` has"),
        ({"value": ["-"]}, "value is not a list of true and false (or 1 and 0, or + and -), one for each step"),
    ],
)  # fmt: skip
def test_a_broken_row_is_refused_with_its_place_and_reason(change: dict[str, Any], reason: str, here: Source):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: ") as error:
        read({**ROW, **change}, here)
    assert error.value.reason == reason


def test_broken_rows_of_a_file_are_counted_by_reason(tmp_path):  # type: ignore[no-untyped-def]
    broken = {**ROW, "input": "What is 2 + 3?"}
    write_rows(tmp_path / "rows.jsonl", [ROW, broken, ROW, broken])
    records = read_records([tmp_path / "rows.jsonl"], on_bad="skip")
    assert len(records.rollouts) == 2
    assert records.skipped == {"input has no 'Step 1:'": 2}


def test_steps_that_are_not_numbered_are(here: Source):
    rollout = Rollout(
        problem_id="a", sample_idx=0, prompt="Q?", response="First.\n\nSecond.",
        extra={"steps": ["First.", "Second."], "step_labels": [True, False]},
    )  # fmt: skip
    (row,) = FORMAT.write(group(rollout)).rows
    assert row == {
        "input": "Q? Step 1: First. ки\nStep 2: Second. ки",
        "label": "Q? Step 1: First. +\nStep 2: Second. -",
    }
    assert read(row, here).extra["step_labels"] == [True, False]


def test_steps_from_the_first_without_a_label_on_are_left_out_and_counted():
    rollout = Rollout(
        problem_id="a", sample_idx=0, prompt="Q?", response="a\n\nb\n\nc",
        extra={"steps": ["a", "b", "c"], "first_error": 0},
    )  # fmt: skip
    written = FORMAT.write(group(rollout))
    assert written.rows == [{"input": "Q? Step 1: a ки", "label": "Q? Step 1: a -"}]
    assert written.skipped == {"steps from the first without a label on": 2}


def test_what_the_format_cannot_say_is_counted():
    fields = {"problem_id": "a", "prompt": "Q?"}
    rollouts = [
        Rollout(**fields, sample_idx=0, response="Step 1: a", extra={"step_labels": [True]}),
        Rollout(**fields, sample_idx=1, response="Step 1: the tag is ки", extra={"step_labels": [True]}),
        Rollout(**fields, sample_idx=2, response="a", correct=True),
        Rollout(**fields, sample_idx=3, response="a", extra={"step_labels": [None]}),
    ]
    written = FORMAT.write(group(*rollouts))
    assert len(written.rows) == 1
    assert written.skipped.total() == 3
    assert (
        written.skipped["responses without step labels"]
        == written.skipped["responses whose first step has no label"]
        == 1
    )


def test_rollouts_without_step_labels_throughout_are_refused():
    rollout = Rollout(problem_id="a", sample_idx=0, prompt="Q?", response="a", correct=True)
    with pytest.raises(DataError, match=r"1 responses without step labels\); it needs step labels \(`step_labels`"):
        FORMAT.write(group(rollout))


def test_our_own_graded_rollouts_come_back_the_same(graded: list[Group], here: Source):
    ours = [rollout for one in graded for rollout in one.rollouts]
    written = FORMAT.write(graded)
    back = [read(row, here) for row in written.rows]
    assert not written.skipped
    assert [one.response for one in back] == [one.response for one in ours]
    assert [one.extra["step_labels"] for one in back] == [one.extra["step_labels"] for one in ours]
    assert [one.extra["first_error"] for one in back] == [one.extra["first_error"] for one in ours]


def test_the_real_rows_are_written_back_as_they_were(real_data):  # type: ignore[no-untyped-def]
    rows = list(read_rows(real_data / "prm_raw_formats" / "samples_math-shepherd.jsonl"))
    assert len(rows) == 7
    for source, row in rows:
        assert isinstance(row, dict)
        assert FORMAT.recognises(row)
        rollout = read(row, source)
        assert len(given_steps(rollout.response, rollout.extra["steps"])) == row["input"].count("ки")
        assert FORMAT.write(group(rollout)).rows == [row]


def test_values_between_0_and_1_are_soft_labels(here: Source):
    text = "What is 2 + 3? Step 1: 2 + 3 = 5. ки\nStep 2: The answer is: 5 ки"
    (one,) = FORMAT.read({"input": text, "value": [0.9, 0.25]}, here)
    assert one.extra["step_values"] == [0.9, 0.25]
    assert "step_labels" not in one.extra
    for wrong in ([0.9], [0.9, 1.5]):
        with pytest.raises(RecordError, match=r"^rows\.jsonl:3: value: is .*; expected 2 numbers from 0 to 1"):
            list(FORMAT.read({"input": text, "value": wrong}, here))
