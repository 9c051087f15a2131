from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats.ultrainteract_pair import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {
    "task": "Math_PoT", "dataset": "MATH", "id": "d1_5_3", "parent_id": "d1",
    "trajectory": [
        {"from": "user", "value": "What is 2 + 3?"}, {"from": "assistant", "value": "Step 1: 6"},
        {"from": "user", "value": "Your answer is wrong."},
    ],
    "chosen": "Step 1: 5", "rejected": "Step 1: 7",
}  # fmt: skip
FORMAT = PLUGIN()


def test_the_trajectory_is_the_prompt(here: Source):
    chosen, rejected = FORMAT.read(ROW, here)
    assert [turn["role"] for turn in chosen.prompt if not isinstance(turn, str)] == ["user", "assistant", "user"]
    assert (chosen.response, chosen.correct) == ("Step 1: 5", True)
    assert (rejected.response, rejected.correct) == ("Step 1: 7", False)
    assert chosen.problem_id == rejected.problem_id
    assert FORMAT.write(group_rollouts([chosen, rejected])).rows == [ROW]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trajectory": []}, "trajectory: is .*; expected a list of objects, at least 1"),
        (
            {"trajectory": [{"from": "human", "value": "?"}]},
            "trajectory.0.from: is 'human'; expected one of user, assist",
        ),
        ({"trajectory": [{"from": "user"}]}, "trajectory.0.value: no such column"),
        ({"chosen": None}, "chosen: is None; expected text"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_pairs_of_our_own_graded_rollouts_come_back_the_same(graded: list[Group], here: Source):
    rows = FORMAT.write(graded).rows
    for row in rows:
        chosen, rejected = FORMAT.read(row, here)
        group = next(one for one in graded if one.prompt == chosen.prompt[0]["content"])  # type: ignore[index]
        labels = {rollout.response: rollout.correct for rollout in group.rollouts}
        assert (labels[chosen.response], labels[rejected.response]) == (True, False)


def test_rollouts_without_a_wrong_response_throughout_are_refused():
    with pytest.raises(DataError, match="1 right and 0 wrong"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=True)]))
