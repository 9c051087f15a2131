from typing import Any

import pytest

from freeprm.core.steps import given_steps
from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.formats.trl_stepwise import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {"prompt": "2 + 3?", "completions": ["2 + 3 = 6.", "So 6. "], "labels": [False, True]}
FORMAT = PLUGIN()


def test_completions_are_steps(here: Source):
    (rollout,) = FORMAT.read({**ROW, "source": "x"}, here)
    assert rollout.response == "2 + 3 = 6.\nSo 6."
    assert rollout.correct is None  # the labels are of steps
    assert rollout.extra == {
        "steps": ROW["completions"], "step_labels": [False, True], "first_error": 0, "source": "x",
    }  # fmt: skip
    assert len(given_steps(rollout.response, rollout.extra["steps"])) == 2
    assert FORMAT.write(group_rollouts([rollout])).rows == [ROW]


def test_the_separator_may_be_another_whitespace(here: Source):
    (rollout,) = PLUGIN(separator="\n\n").read(ROW, here)
    assert rollout.response == "2 + 3 = 6.\n\nSo 6."
    for separator in ("", " | "):
        with pytest.raises(ConfigError, match="separator: is"):
            PLUGIN(separator=separator)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [True]}, "labels: has 1 for 2 steps; expected a list of true and false"),
        ({"labels": [True, None]}, "labels: is .*; expected a list of true and false"),
        ({"completions": "text"}, "completions: is 'text'; expected a list of texts"),
        ({"completions": []}, "completions: is"),
        ({"prompt": None}, "prompt: is None; expected text or a list"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_steps_from_the_first_without_a_label_on_are_left_out_and_counted():
    extra = {"steps": ["a", "b", "c"], "step_labels": [True, None, False]}
    rollout = Rollout(problem_id="a", sample_idx=0, prompt="Q?", response="a\nb\nc", extra=extra)
    written = FORMAT.write(group_rollouts([rollout]))
    assert written.rows == [{"prompt": "Q?", "completions": ["a"], "labels": [True]}]
    assert written.skipped == {"steps from the first without a label on": 2}


def test_rollouts_without_step_labels_throughout_are_refused():
    with pytest.raises(DataError, match="needs step labels"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=True)]))


def test_our_own_graded_rollouts_come_back_the_same(graded: list[Group], here: Source):
    ours = [rollout for one in graded for rollout in one.rollouts]
    written = FORMAT.write(graded)
    back = [rollout for row in written.rows for rollout in FORMAT.read(row, here)]
    assert not written.skipped
    assert [one.response for one in back] == [one.response for one in ours]
    assert [one.extra["step_labels"] for one in back] == [one.extra["step_labels"] for one in ours]
    assert len(group_rollouts(back)) == len(graded)
