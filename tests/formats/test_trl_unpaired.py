from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats._preferences import CUT_OFF
from freeprm.formats.trl_unpaired import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

USER = {"role": "user", "content": "2 + 3?"}
TEXTS: dict[str, Any] = {"prompt": "2 + 3?", "completion": "It is 5.", "label": True}
MESSAGES: dict[str, Any] = {
    "prompt": [USER], "completion": [{"role": "assistant", "content": "It is 5."}], "label": False,
}  # fmt: skip
FORMAT = PLUGIN()


@pytest.mark.parametrize("row", [TEXTS, MESSAGES], ids=["texts", "messages"])
def test_the_label_is_the_outcome(row: dict[str, Any], here: Source):
    (rollout,) = FORMAT.read({**row, "source": "x"}, here)
    assert (rollout.response, rollout.correct, rollout.extra) == ("It is 5.", row["label"], {"source": "x"})
    assert FORMAT.write(group_rollouts([rollout])).rows == [row]


def test_rows_with_one_prompt_are_one_problem(here: Source):
    first, second, other = (
        next(iter(FORMAT.read(row, here)))
        for row in (TEXTS, {**TEXTS, "completion": "It is 6."}, {**TEXTS, "prompt": "2 + 4?"})
    )
    assert first.problem_id == second.problem_id != other.problem_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "yes"}, "label: is 'yes'; expected true or false"),
        ({"label": None}, "label: is None; expected true or false"),
        ({"prompt": []}, "prompt: is"),
        ({"completion": None}, "completion: is None; expected text"),
        ({"completion": [USER]}, "completion: goes on with messages of user"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**TEXTS, **change}, here))


def test_what_the_format_cannot_say_is_counted():
    fields: dict[str, Any] = {"problem_id": "p", "prompt": "Q?", "response": "a"}
    groups = group_rollouts([
        Rollout(**fields, sample_idx=0, correct=True), Rollout(**fields, sample_idx=1),
        Rollout(**fields, sample_idx=2, correct=False, truncated=True),
    ])  # fmt: skip
    written = FORMAT.write(groups)
    assert written.rows == [{"prompt": "Q?", "completion": "a", "label": True}]
    assert written.skipped == {"ungraded responses": 1, CUT_OFF: 1}
    assert len(PLUGIN(cut_off=True, conversational=True).write(groups).rows) == 2


def test_ungraded_rollouts_throughout_are_refused():
    with pytest.raises(DataError, match="needs outcome labels"):
        FORMAT.write(group_rollouts([Rollout(problem_id="p", sample_idx=0, prompt="?", response="a")]))


@pytest.mark.parametrize("conversational", [None, True])
def test_our_own_graded_rollouts_come_back_the_same(conversational: bool | None, graded: list[Group], here: Source):
    ours = [rollout for one in graded for rollout in one.rollouts if rollout.correct is not None]
    rows = PLUGIN(conversational=conversational).write(graded).rows
    back = [rollout for row in rows for rollout in FORMAT.read(row, here)]
    assert [(one.response, one.correct) for one in back] == [(one.response, one.correct) for one in ours]
    assert len(group_rollouts(back)) == len(graded)
