from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats.rlhflow import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {"prompt": "2 + 3?", "answers": ["It is 5.", "It is 6.", ""], "label": [1, 0, 0]}
SCORES = [[0.5, 0.9], [0.1], []]
FORMAT = PLUGIN()


def test_each_answer_is_a_response_with_its_label(here: Source):
    rollouts = list(FORMAT.read({**ROW, "source": "x"}, here))
    assert [(one.response, one.correct) for one in rollouts] == list(
        zip(ROW["answers"], [True, False, False], strict=True)
    )
    assert [one.sample_idx for one in rollouts] == [0, 1, 2]
    assert len({one.problem_id for one in rollouts}) == 1
    assert FORMAT.write(group_rollouts(rollouts)).rows == [ROW]


def test_the_labels_are_read_under_either_name(here: Source):
    row = {"prompt": "?", "answers": ["a"], "labels": [1]}
    assert FORMAT.recognises(row)
    assert [one.correct for one in FORMAT.read(row, here)] == [True]


def test_step_scores_are_read_and_written(here: Source):
    rollouts = list(FORMAT.read({**ROW, "step_scores": SCORES}, here))
    assert [one.step_scores for one in rollouts] == [(0.5, 0.9), (0.1,), ()]
    assert FORMAT.write(group_rollouts(rollouts)).rows == [{**ROW, "step_scores": SCORES}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": [1, 0]}, "label: has 2 for 3 answers; expected a list of true and false"),
        ({"label": [1, 0, 2]}, "label: is .*; expected a list of true and false"),
        ({"answers": []}, "answers: is .*; expected a list of texts, at least one"),
        ({"step_scores": [[0.5]]}, "step_scores: has 1 for 3 answers"),
        ({"step_scores": [["0.5"], [], []]}, "step_scores: is .*; expected a list of lists of finite numbers"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_what_the_format_cannot_say_is_counted():
    fields: dict[str, Any] = {"problem_id": "p", "prompt": "Q?", "response": "a"}
    groups = group_rollouts([
        Rollout(**fields, sample_idx=0, correct=True, step_scores=(1.0,)), Rollout(**fields, sample_idx=1),
        Rollout(**fields, sample_idx=2, correct=False),
    ])  # fmt: skip
    written = FORMAT.write(groups)
    assert written.rows == [{"prompt": "Q?", "answers": ["a", "a"], "label": [1, 0]}]
    assert written.skipped == {
        "ungraded responses": 1, "step scores of problems where not every response has them": 1,
    }  # fmt: skip


def test_ungraded_rollouts_throughout_are_refused():
    with pytest.raises(DataError, match="needs outcome labels"):
        FORMAT.write(group_rollouts([Rollout(problem_id="p", sample_idx=0, prompt="?", response="a")]))


def test_our_own_graded_rollouts_come_back_the_same(graded: list[Group], here: Source):
    back = group_rollouts([rollout for row in FORMAT.write(graded).rows for rollout in FORMAT.read(row, here)])
    for ours, theirs in zip(graded, back, strict=True):
        assert ours.prompt == theirs.prompt
        assert [(r.response, r.correct) for r in ours.rollouts] == [(r.response, r.correct) for r in theirs.rollouts]
