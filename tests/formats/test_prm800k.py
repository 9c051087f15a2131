import copy
from pathlib import Path
from typing import Any

import pytest

from freeprm.core.steps import given_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats.prm800k import PLUGIN
from freeprm.io.files import read_rows
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts


def completion(text: str, rating: int | None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": None}


ROW: dict[str, Any] = {
    "labeler": "l", "timestamp": "2023", "generation": None, "is_quality_control_question": False,
    "is_initial_screening_question": False,
    "question": {"problem": "What is 2 + 3?", "ground_truth_answer": "5"},
    "label": {
        "steps": [
            {
                "completions": [completion("Let us see.", 0), completion("It is 6.", -1)],
                "human_completion": None, "chosen_completion": 0,
            },
            {
                "completions": [completion("2 + 3 = 6.", -1)],
                "human_completion": {"text": "2 + 3 = 5.", "rating": None}, "chosen_completion": None,
            },
            {
                "completions": [
                    completion("So 6.", -1), completion("So 5.\n\n# Answer\n\n5", 1), completion("Hm.", None),
                ],
                "human_completion": None, "chosen_completion": 1,
            },
        ],
        "total_time": 1, "finish_reason": "solution",
    },
}  # fmt: skip
FORMAT = PLUGIN()


def read(row: dict[str, Any], here: Source, **options: Any) -> list[Rollout]:
    return list(PLUGIN(**options).read(row, here))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The row with another value at a place such as `label.steps.0`."""
    row: Any = copy.deepcopy(ROW)
    *way, last = [int(name) if name.isdigit() else name for name in path.split(".")]
    inner = row
    for name in way:
        inner = inner[name]
    inner[last] = value
    assert isinstance(row, dict)
    return row


def test_the_steps_taken_become_a_response_with_labels(here: Source):
    (rollout,) = read(ROW, here)
    assert rollout.prompt == "What is 2 + 3?"
    assert rollout.answer == "5"
    assert rollout.extra["steps"] == ["Let us see.", "2 + 3 = 5.", "So 5.\n\n# Answer\n\n5"]
    assert rollout.extra["step_labels"] == [True, True, True]  # neutral, a labeler's own, +1
    assert rollout.extra["first_error"] is None
    assert rollout.response == "Let us see.\n2 + 3 = 5.\nSo 5.\n\n# Answer\n\n5"
    assert (rollout.correct, rollout.truncated) == (True, False)


@pytest.mark.parametrize(("neutral", "first_error"), [(True, None), (False, 0), (None, None)])
def test_a_neutral_step_is_labelled_as_asked(neutral: bool | None, first_error: int | None, here: Source):
    (rollout,) = read(ROW, here, neutral=neutral)
    assert rollout.extra["step_labels"] == [neutral, True, True]
    assert rollout.extra["first_error"] == first_error


def test_alternatives_end_with_each_other_rated_completion(here: Source):
    whole, *others = read(ROW, here, alternatives=True)
    assert [(other.extra["steps"], other.extra["step_labels"]) for other in others] == [
        (["It is 6."], [False]),
        (["Let us see.", "2 + 3 = 6."], [True, False]),
        (["Let us see.", "2 + 3 = 5.", "So 6."], [True, True, False]),
    ]
    assert [rollout.sample_idx for rollout in (whole, *others)] == [0, 1, 2, 3]
    assert all(other.truncated and other.correct is None for other in others)
    assert "label" not in whole.extra


def test_a_solution_with_an_error_ends_with_it(here: Source):
    row = changed("label.finish_reason", "found_error")
    row["question"]["pre_generated_steps"] = ["Let us see.", "2 + 3 = 5.", "So 6."]
    row["label"]["steps"][2]["chosen_completion"] = None
    (rollout,) = read(row, here)
    assert rollout.extra["steps"][-1] == "So 6."
    assert rollout.extra["step_labels"] == [True, True, False]
    assert (rollout.correct, rollout.truncated) == (None, True)


def test_a_trajectory_that_was_given_up_ends_before(here: Source):
    row = changed("label.finish_reason", "give_up")
    row["label"]["steps"][2] = {"completions": None, "human_completion": None, "chosen_completion": None}
    (rollout,) = read(row, here)
    assert rollout.extra["steps"] == ["Let us see.", "2 + 3 = 5."]
    assert (rollout.correct, rollout.truncated) == (None, True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("question", "text", "question: is 'text'; expected an object"),
        ("question.problem", "", "question.problem: is ''; expected text"),
        ("label.steps", [], "label.steps: is .*; expected a list of objects, at least 1"),
        ("label.steps.0.chosen_completion", 2, "label.steps.0.chosen_completion: is 2; expected an index below 2"),
        ("label.steps.0.completions.1.rating", 2, "label.steps.0.completions.1.rating: is 2; expected -1, 0"),
        ("label.steps.0.completions.1.rating", True, "label.steps.0.completions.1.rating: is True"),
        ("label.steps.2.completions.1.text", None, "label.steps.2.completions.1.text: is None; expected text"),
        ("label.steps.1.human_completion", "text", "label.steps.1.human_completion: is 'text'; expected an object"),
        ("label.steps.0.chosen_completion", None, "label.steps: has none; expected a step that was taken"),
    ],
)  # fmt: skip
def test_a_broken_row_is_refused_with_its_place_and_field(path: str, value: object, message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        read(changed(path, value), here)


def test_a_row_that_was_read_is_written_as_it_was(here: Source):
    assert FORMAT.write(group_rollouts(read(ROW, here))).rows == [ROW]


def test_our_own_graded_rollouts_come_back_the_same(graded: list[Group], here: Source):
    ours = [rollout for one in graded for rollout in one.rollouts]
    written = FORMAT.write(graded)
    back = [rollout for row in written.rows for rollout in read(row, here)]
    assert not written.skipped
    assert all(FORMAT.recognises(row) for row in written.rows)
    assert [one.response for one in back] == [one.response for one in ours]
    assert [one.extra["step_labels"] for one in back] == [one.extra["step_labels"] for one in ours]
    assert [one.answer for one in back] == [one.answer for one in ours]
    assert [one.correct for one in back] == [one.correct or None for one in ours]  # it cannot say `wrong`


def test_rollouts_without_step_labels_throughout_are_refused():
    with pytest.raises(DataError, match="needs step labels"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=True)]))


def test_the_real_rows_are_read_whole_and_written_back(real_data: Path):
    rows = list(read_rows(real_data / "prm_raw_formats" / "samples_prm800k.jsonl"))
    assert len(rows) == 6
    ends = []
    for source, row in rows:
        assert isinstance(row, dict)
        assert FORMAT.recognises(row)
        (rollout,) = read(row, source)
        given_steps(rollout.response, rollout.extra["steps"])
        assert FORMAT.write(group_rollouts([rollout])).rows == [row]
        ends.append((len(rollout.extra["steps"]), rollout.extra["first_error"], rollout.correct, rollout.truncated))
    # Counted by hand in the file: steps with a choice, the wrong one of `found_error`, the empty last of `give_up`.
    assert ends == [
        (6, None, True, False), (7, 6, None, True), (5, None, True, False), (7, None, True, False),
        (8, None, None, True), (12, None, True, False),
    ]  # fmt: skip


def test_every_rated_completion_of_the_real_rows_is_an_alternative(real_data: Path):
    rows = [row for _, row in read_rows(real_data / "prm_raw_formats" / "samples_prm800k.jsonl")]
    counts = [len(read(row, Source(Path("x"), 1), alternatives=True)) for row in rows if isinstance(row, dict)]
    # 1 + what was rated and not taken: 5 + 4, 3, 6, 6, 6, 0.
    assert counts == [10, 4, 7, 7, 7, 1]
