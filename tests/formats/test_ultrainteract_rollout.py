"""The paper's training data: a row is a problem, its completions become rollouts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from freeprm.core.steps import given_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats._reading import read_records
from freeprm.formats.ultrainteract_rollout import PLUGIN
from freeprm.io.files import write_table
from freeprm.io.rows import Source
from freeprm.types import Group, group_rollouts

ROW = {
    "prompt": "What is 2 + 3?", "reference": "5", "dataset": "GSM8K",
    "completions": ["Step 1: 2 + 3 = 5.\n\nStep 2: 5", "1. Compute: \\[\n2 + 3 = 6\n\\]"],
    "correctness": [True, False],
    # As published: the second response's line breaks are gone from its steps.
    "steps": [["Step 1: 2 + 3 = 5.", "Step 2: 5"], ["1. Compute: \\[ 2 + 3 = 6 \\]"]],
}  # fmt: skip


def test_each_completion_becomes_a_rollout_with_its_label(here: Source):
    right, wrong = PLUGIN().read(ROW, here)
    assert (right.problem_id, right.sample_idx, wrong.sample_idx) == (wrong.problem_id, 0, 1)
    assert (right.prompt, right.answer, right.correct) == ("What is 2 + 3?", "5", True)
    assert (wrong.response, wrong.correct) == ("1. Compute: \\[\n2 + 3 = 6\n\\]", False)
    assert right.extra == {"steps": ROW["steps"][0], "dataset": "GSM8K"}
    assert given_steps(right.response, right.extra["steps"])


def test_steps_that_are_not_in_the_response_as_they_are_do_not_pass_for_its_steps(here: Source):
    _, wrong = PLUGIN().read(ROW, here)
    assert wrong.extra == {"source_steps": ROW["steps"][1], "dataset": "GSM8K"}


def test_steps_and_the_reference_may_be_missing(here: Source):
    row = {name: ROW[name] for name in ("prompt", "completions", "correctness")}
    assert PLUGIN().recognises(row)
    right, _ = PLUGIN().read(row, here)
    assert (right.answer, right.extra) == (None, {})
    numbered, _ = PLUGIN().read({**row, "reference": 5.0}, here)
    assert numbered.answer == "5.0"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None), ("prompt", ""), ("completions", []), ("completions", ["a", 1]), ("completions", "text"),
        ("correctness", [True]), ("correctness", [True, "yes"]), ("correctness", True), ("steps", [["a"]]),
        ("steps", [["a"], "b"]), ("steps", [["a"], [1]]), ("reference", ["5"]),
    ],
)  # fmt: skip
def test_a_broken_row_is_refused_by_place_and_field(here: Source, field: str, value: Any):
    with pytest.raises(RecordError, match=rf"^{here}: {field}: .*; expected") as caught:
        list(PLUGIN().read({**ROW, field: value}, here))
    assert str(here) not in caught.value.reason


def test_what_is_read_is_written_again(here: Source):
    made = PLUGIN().write(group_rollouts(list(PLUGIN().read(ROW, here))))
    assert made.rows == [ROW]


def test_our_graded_rollouts_become_a_row_a_problem(graded: list[Group]):
    made = PLUGIN(dataset="world").write(graded)
    assert [row["prompt"] for row in made.rows] == [group.prompt for group in graded]
    for row, group in zip(made.rows, graded, strict=True):
        assert row["completions"] == [rollout.response for rollout in group.rollouts]
        assert row["correctness"] == [rollout.correct for rollout in group.rollouts]
        assert row["dataset"] == "world"
        for completion, steps in zip(row["completions"], row["steps"], strict=True):
            assert len(given_steps(completion, steps)) == len(steps) > 0


def test_responses_without_label_are_left_out_and_counted(here: Source):
    right, wrong = PLUGIN().read(ROW, here)
    made = PLUGIN().write(group_rollouts([right, replace(wrong, correct=None)]))
    assert made.rows[0]["correctness"] == [True]
    assert made.skipped == {"responses without label, to problems that have labelled ones": 1}
    with pytest.raises(DataError, match=r"1 problems without a labelled response.*`freeprm grade`"):
        PLUGIN().write(group_rollouts([replace(right, correct=None)]))


def test_prompts_that_are_conversations_of_several_turns_are_counted(here: Source):
    right, _ = PLUGIN().read(
        {**ROW, "prompt": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}, here
    )
    with pytest.raises(DataError, match="a prompt of several messages"):
        PLUGIN().write(group_rollouts([right]))


def test_a_parquet_file_as_the_hub_has_it_is_read_whole(tmp_path: Path):
    write_table(tmp_path / "train-00000-of-00001.parquet", [ROW, {**ROW, "prompt": "What is 1 + 4?"}])
    read = read_records([tmp_path])
    assert (read.n_rows, len(read.rollouts)) == (2, 4)
    assert [item.sample_idx for item in read.rollouts] == [0, 1, 0, 1]
