"""ProcessBench's rows in and out, by hand and on the published files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from freeprm.core.steps import given_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats._reading import formats_of, read_records
from freeprm.formats.processbench import PLUGIN
from freeprm.io.rollouts import read_rollouts
from freeprm.types import Group, Rollout, group_rollouts

ENTRY = {
    "id": "x-0", "generator": "g", "problem": "2 + 2?", "steps": ["2 + 2 = 5.", "The answer is 5."],
    "final_answer_correct": False, "label": 0,
}  # fmt: skip


def write(folder: Path, *entries: object) -> Path:
    path = folder / "entries.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def read_processbench(path: Path) -> list[Rollout]:
    return read_rollouts([path], formats={path: "processbench"}).rollouts


def is_processbench(path: Path) -> bool:
    return formats_of([path], among=("processbench",)) == {path: "processbench"}


def test_an_entry_becomes_a_rollout(tmp_path: Path):
    (rollout,) = read_processbench(write(tmp_path, ENTRY))
    assert rollout.problem_id == "x-0"
    assert rollout.prompt == "2 + 2?"
    assert rollout.response == "2 + 2 = 5.\n\nThe answer is 5."
    assert rollout.correct is False
    assert rollout.extra == {"steps": ENTRY["steps"], "first_error": 0, "generator": "g"}


def test_minus_one_is_no_error(tmp_path: Path):
    (rollout,) = read_processbench(write(tmp_path, {**ENTRY, "label": -1}))
    assert rollout.extra["first_error"] is None


def test_added_step_scores_are_read(tmp_path: Path):
    first = {**ENTRY, "scorer": "a", "step_scores": [0, -1.5]}
    rollouts = read_processbench(write(tmp_path, first, {**first, "scorer": "b"}))
    assert [(rollout.scorer, rollout.step_scores) for rollout in rollouts] == [("a", (0.0, -1.5)), ("b", (0.0, -1.5))]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", 2), ("label", -2), ("label", True), ("label", "0"), ("steps", []), ("steps", "text"),
        ("steps", [1, 2]), ("final_answer_correct", 1), ("id", 3), ("problem", None), ("step_scores", [0.5]),
        ("scorer", 1), ("step_scores", ["a", "b"]),
    ],
)  # fmt: skip
def test_a_broken_entry_is_refused_with_its_number_and_field(tmp_path: Path, field: str, value: object):
    with pytest.raises(RecordError, match=rf"entries\.json:2: {field}: is .*; expected"):
        read_processbench(write(tmp_path, {**ENTRY, "id": "y"}, {**ENTRY, field: value}))


def test_a_missing_field_is_refused_with_its_name(tmp_path: Path):
    with pytest.raises(RecordError, match="label: no such column"):
        read_processbench(write(tmp_path, {key: value for key, value in ENTRY.items() if key != "label"}))


def test_an_id_that_comes_twice_is_refused(tmp_path: Path):
    with pytest.raises(RecordError, match=r"json:2: id: 'x-0' is already at .*json:1"):
        read_processbench(write(tmp_path, ENTRY, ENTRY))


def test_the_format_is_recognised_by_its_columns(tmp_path: Path):
    assert is_processbench(write(tmp_path, ENTRY))
    assert not is_processbench(write(tmp_path, {"problem_id": "x", "label": True}))
    assert not is_processbench(write(tmp_path))


def test_no_entry_at_all_is_refused(tmp_path: Path):
    with pytest.raises(RecordError, match="no usable record"):
        read_processbench(write(tmp_path))


@pytest.mark.parametrize(("name", "n_entries", "n_correct"), [("gsm8k", 400, 193), ("math", 1000, 406)])
def test_the_published_files_are_read_whole(real_data: Path, name: str, n_entries: int, n_correct: int):
    path = real_data / "processbench" / f"{name}.json"
    assert is_processbench(path)
    rollouts = read_processbench(path)
    assert len(rollouts) == n_entries
    assert sum(rollout.extra["first_error"] is None for rollout in rollouts) == n_correct
    for rollout in rollouts[:100]:
        assert len(given_steps(rollout.response, rollout.extra["steps"])) == len(rollout.extra["steps"])


def test_the_published_rows_are_written_as_they_were(real_data: Path):
    path = real_data / "processbench" / "gsm8k.json"
    made = PLUGIN().write(group_rollouts(read_records([path]).rollouts))
    assert not made.skipped
    assert made.rows == json.loads(path.read_text(encoding="utf-8"))


def test_added_scores_are_written_with_their_scorer(tmp_path: Path):
    row = {**ENTRY, "scorer": "a", "step_scores": [0.0, -1.5]}
    (written,) = PLUGIN().write(group_rollouts(read_processbench(write(tmp_path, row)))).rows
    assert written == row


def test_our_graded_rollouts_of_the_embedded_world_become_rows_with_their_true_first_error(graded: list[Group]):
    made = PLUGIN().write(graded)
    rollouts = [rollout for group in graded for rollout in group.rollouts]
    assert len(made.rows) == len(rollouts)
    assert len({row["id"] for row in made.rows}) == len(rollouts)
    for row, rollout in zip(made.rows, rollouts, strict=True):
        error = rollout.extra["first_error"]
        assert row["label"] == (-1 if error is None else error)
        assert len(given_steps(rollout.response, row["steps"])) == len(row["steps"])


def test_what_cannot_be_said_is_counted_by_reason(tmp_path: Path):
    (rollout,) = read_processbench(write(tmp_path, ENTRY))
    unlabelled = replace(rollout, correct=None, sample_idx=1)
    unknown = replace(rollout, sample_idx=2, extra={"steps": rollout.extra["steps"], "step_labels": [None, False]})
    made = PLUGIN().write(group_rollouts([rollout, unlabelled, unknown]))
    assert [row["id"] for row in made.rows] == ["x-0-0"]
    assert made.skipped == {
        "responses without label (correct)": 1,
        "responses with a step of unknown label and no wrong one before it": 1,
    }
    with pytest.raises(DataError, match="needs responses with `correct` and `step_labels` or `first_error`"):
        PLUGIN().write(group_rollouts([unlabelled]))
