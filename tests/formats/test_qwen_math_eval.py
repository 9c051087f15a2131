from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import RecordError
from freeprm.formats._reading import read_records
from freeprm.formats.qwen_math_eval import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import group_rollouts

ROW: dict[str, Any] = {
    "idx": 3, "question": "2 + 3?", "gt_cot": "5", "gt": 5, "code": ["It is 5.", "It is 6.", ""],
    "pred": ["5", "6", ""], "report": [None, "Done", None], "score": [True, False, False],
}  # fmt: skip
FORMAT = PLUGIN()


def test_each_sample_is_a_response_with_its_answer_and_verdict_and_the_gold_is_kept(here: Source):
    rollouts = list(FORMAT.read({**ROW, "answer": "five", "level": 2}, here))
    assert [(one.problem_id, one.sample_idx, one.response, one.pred, one.correct) for one in rollouts] == [
        ("3", 0, "It is 5.", "5", True), ("3", 1, "It is 6.", "6", False), ("3", 2, "", None, False),
    ]  # fmt: skip
    assert {one.answer for one in rollouts} == {"5"}
    assert rollouts[1].extra == {"gt_cot": "5", "source_answer": "five", "level": 2, "report": "Done"}
    assert FORMAT.write(group_rollouts(rollouts)).rows == [{**ROW, "idx": "3", "gt": "5"}]


def test_a_reward_models_number_is_a_score_and_several_are_of_steps(here: Source):
    rollouts = list(FORMAT.read({**ROW, "pred_score": [[0.5], 0.25, [0.1, 0.2]]}, here))
    assert [(one.score, one.step_scores) for one in rollouts] == [(0.5, None), (0.25, None), (None, (0.1, 0.2))]


def test_samples_that_were_not_graded_have_no_label(here: Source):
    (row,) = FORMAT.write(group_rollouts(list(FORMAT.read({**ROW, "score": None}, here)))).rows
    assert "score" not in row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": [True]}, "score: has 1 for 3 samples"),
        ({"pred": ["5"]}, "pred: has 1 for 3 samples; expected a list of answers, one for each sample"),
        (
            {"pred_score": [0.5]},
            "pred_score: has 1 for 3 samples; expected a list of numbers, or of lists of them, one for each",
        ),
        ({"code": [1]}, "code: is .*; expected a list of texts, at least one"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_qwens_own_file_has_its_labels_scores_and_gold_answers(real_data: Path):
    read = read_records([real_data / "qwen_rm_maj_100x8" / "raw_math_cot_100.jsonl"])
    assert set(read.formats.values()) == {"qwen_math_eval"}
    groups = group_rollouts(read.rollouts)
    assert [len(group.rollouts) for group in groups] == [8] * 100
    assert all(one.answer is not None and one.score is not None for one in read.rollouts)
    best = [max(group.rollouts, key=lambda one: one.score or 0.0).correct for group in groups]
    assert sum(map(bool, best)) == 94  # as that project reports of best-of-8
