from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats.ultrafeedback import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import Rollout, group_rollouts

ROW: dict[str, Any] = {
    "source": "flan", "instruction": "What is 2 + 3?", "models": ["a", "b"], "correct_answers": ["5"],
    "incorrect_answers": ["None"],
    "completions": [
        {
            "model": "a", "principle": "honesty", "custom_system_prompt": "Be honest.", "response": "5",
            "annotations": {"honesty": {"Rating": "5"}}, "critique": "Good.", "overall_score": 8.5,
            "fine-grained_score": 4.5,
        },
        {
            "model": "b", "principle": "helpfulness", "custom_system_prompt": "Help.", "response": "",
            "annotations": {"honesty": {"Rating": "N/A"}}, "critique": "Empty.", "overall_score": 1,
            "fine-grained_score": 2,
        },
    ],
}  # fmt: skip
FORMAT = PLUGIN()


def test_each_completion_is_a_response_with_a_score(here: Source):
    good, bad = FORMAT.read(ROW, here)
    assert (good.problem_id, good.prompt, good.sample_idx, bad.sample_idx) == (bad.problem_id, "What is 2 + 3?", 0, 1)
    assert [(one.response, one.score, one.scorer, one.correct) for one in (good, bad)] == [
        ("5", 8.5, "overall_score", None), ("", 1.0, "overall_score", None),
    ]  # fmt: skip
    assert (good.extra["model"], good.extra["source"], good.extra["fine-grained_score"]) == ("a", "flan", 4.5)


def test_the_score_and_its_threshold_are_chosen(here: Source):
    rollouts = list(PLUGIN(score="fine-grained_score", threshold=4.5).read(ROW, here))
    assert [(one.score, one.correct) for one in rollouts] == [(4.5, True), (2.0, False)]


def test_a_completion_without_a_score_has_none(here: Source):
    first, second = ROW["completions"]
    row = {**ROW, "completions": [{**first, "overall_score": None}, second]}
    rollouts = list(PLUGIN(threshold=5).read(row, here))
    assert [(one.score, one.scorer, one.correct) for one in rollouts] == [
        (None, None, None), (1.0, "overall_score", False),
    ]  # fmt: skip
    assert FORMAT.write(group_rollouts(rollouts)).skipped == {"responses without a score": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completions": []}, "completions: is"),
        ({"completions": ["5"]}, "completions: is .*; expected a list of objects"),
        ({"completions": [{"response": 5}]}, "completions.0.response: is 5; expected text"),
        (
            {"completions": [{"response": "5", "overall_score": "8"}]},
            "completions.0.overall_score: is '8'; expected a fin",
        ),
        ({"instruction": None}, "instruction: is None; expected text"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


@pytest.mark.parametrize("score", ["overall_score", "fine-grained_score"])
def test_a_row_that_was_read_is_written_as_it_was(score: str, here: Source):
    format_ = PLUGIN(score=score)
    assert format_.write(group_rollouts(list(format_.read(ROW, here)))).rows == [ROW]


def test_rollouts_without_scores_throughout_are_refused():
    with pytest.raises(DataError, match=r"needs scores of responses \(`score`\)"):
        FORMAT.write(group_rollouts([Rollout(problem_id="a", sample_idx=0, prompt="?", response="a", correct=True)]))
