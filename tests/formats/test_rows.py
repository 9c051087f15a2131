"""Our own rows as a format: nothing is lost, and whole files go through the reader that every stage uses."""

from collections import Counter
from pathlib import Path

import pytest

from freeprm.errors import RecordError
from freeprm.formats._reading import read_records
from freeprm.formats.rows import PLUGIN
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import Source, write_rows
from freeprm.types import Group, Rollout

ROLLOUT = Rollout(
    problem_id="p", sample_idx=3, prompt=({"role": "user", "content": "2 + 2?"},), response="4", answer="4", pred="4",
    correct=True, truncated=True, scorer="a", step_scores=(0.5, 1.0), score=2.0, extra={"steps": ["4"], "level": 3},
)  # fmt: skip


def test_a_rollout_is_written_with_all_that_it_holds(here: Source):
    made = PLUGIN().write([Group(problem_id="p", prompt=ROLLOUT.prompt, rollouts=(ROLLOUT,))])
    assert made.skipped == Counter()
    assert list(PLUGIN().read(made.rows[0], here)) == [ROLLOUT]


def test_a_row_is_recognised_by_its_problem_its_prompt_and_its_response():
    row = {"problem_id": "p", "prompt": "2 + 2?", "response": "4"}
    assert PLUGIN().recognises(row)
    assert not any(PLUGIN().recognises({key: row[key] for key in row if key != name}) for name in row)


def test_a_broken_row_is_refused_by_place_and_field(here: Source):
    with pytest.raises(RecordError, match=rf"{here}: correct: is 'yes'; expected true, false"):
        list(PLUGIN().read({"problem_id": "p", "prompt": "2 + 2?", "response": "4", "correct": "yes"}, here))


def test_files_of_our_rows_keep_their_numbers_and_their_scorers(tmp_path: Path):
    rows = [
        {"problem_id": "p", "sample_idx": index, "prompt": "2 + 2?", "response": "4", "scorer": scorer, "score": 1.0}
        for index in (5, 2)
        for scorer in ("a", "b")
    ]
    write_rows(tmp_path / "a.jsonl", rows)
    read = read_records([tmp_path / "a.jsonl"])
    assert read.rollouts == read_rollouts([tmp_path / "a.jsonl"]).rollouts
    assert [(item.sample_idx, item.scorer) for item in read.rollouts] == [(5, "a"), (5, "b"), (2, "a"), (2, "b")]
    assert read.formats == {tmp_path / "a.jsonl": "rows"}
