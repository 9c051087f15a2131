from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats.ultrainteract_sft import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {
    "task": "Math_CoT", "dataset": "gsm8k", "instruction": "What is 2 + 3?", "response": "Step 1: 5", "id": "9_1_1",
    "parent_id": "5",
}  # fmt: skip
FORMAT = PLUGIN()


def test_an_action_is_right(here: Source):
    (rollout,) = FORMAT.read(ROW, here)
    assert (rollout.prompt, rollout.response, rollout.correct) == ("What is 2 + 3?", "Step 1: 5", True)
    assert rollout.extra == {name: ROW[name] for name in ("task", "dataset", "id", "parent_id")}
    assert FORMAT.write(group_rollouts([rollout])).rows == [ROW]


def test_a_broken_row_is_refused_with_its_place_and_field(here: Source):
    for name in ("instruction", "response"):
        with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {name}: is None; expected text"):
            list(FORMAT.read({**ROW, name: None}, here))


def test_the_right_ones_of_our_own_come_back_and_the_others_are_counted(graded: list[Group], here: Source):
    ours = [rollout for one in graded for rollout in one.rollouts]
    right = [rollout.response for rollout in ours if rollout.correct]
    written = FORMAT.write(graded)
    assert [next(iter(FORMAT.read(row, here))).response for row in written.rows] == right
    assert written.skipped == {"wrong responses": len(ours) - len(right)}


def test_rollouts_without_a_right_response_throughout_are_refused():
    with pytest.raises(DataError, match="needs responses that are right"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=False)]))
