from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats._reading import read_records
from freeprm.formats.search_and_learn import PLUGIN
from freeprm.io.files import read_rows
from freeprm.io.rows import Source
from freeprm.types import Group, Rollout, group_rollouts

ROW: dict[str, Any] = {
    "problem": "2 + 3?", "solution": "Count.", "answer": "5", "subject": "Algebra", "level": 1, "unique_id": "t/1.json",
    "completions": ["It is 5.", "It\n\nis 6."], "scores": [[0.9], [0.5, 0.25]], "pred": "It is 5.",
    "completion_tokens": [4, 5], "agg_scores": [0.9, 0.25], "pred_weighted@2": "\\boxed{5}",
    "pred_naive@1": "\\boxed{5}",
}  # fmt: skip
FORMAT = PLUGIN()
FILES = ["scatyf3_llama3b_10x4.raw.jsonl", "rajlm10_llama1b_1x4.raw.jsonl"]


def test_each_completion_is_a_response_with_step_scores(here: Source):
    first, second = FORMAT.read(ROW, here)
    assert (first.problem_id, first.answer, first.step_scores) == ("t/1.json", "5", (0.9,))
    assert (second.response, second.step_scores, second.extra["agg_score"]) == ("It\n\nis 6.", (0.5, 0.25), 0.25)
    assert second.pred is None  # the row's `pred` is the response that was chosen among all
    assert second.extra["source_pred"] == "It is 5."
    assert FORMAT.write(group_rollouts([first, second])).rows == [ROW]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [[0.9]]}, "scores: has 1 for 2 completions; expected a list of lists of finite numbers"),
        ({"scores": [0.9, 0.5]}, "scores: is .*; expected a list of lists"),
        ({"completions": "text"}, "completions: is 'text'; expected a list of texts"),
        ({"problem": None}, "problem: is None; expected text"),
        ({"answer": ["5"]}, "answer: is .*; expected text or a number"),
    ],
)
def test_a_broken_row_is_refused_with_its_place_and_field(change: dict[str, Any], message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        list(FORMAT.read({**ROW, **change}, here))


def test_a_problem_that_is_not_scored_whole_is_counted():
    fields: dict[str, Any] = {"prompt": "?", "response": "a"}
    scored = Rollout(**fields, problem_id="p", sample_idx=0, step_scores=(0.5,))
    without = [replace(scored, problem_id="q"), Rollout(**fields, problem_id="q", sample_idx=1)]
    written = FORMAT.write(group_rollouts([scored, *without]))
    assert [row["unique_id"] for row in written.rows] == ["p"]
    assert written.skipped == {"problems where not every response has step scores": 1}
    with pytest.raises(DataError, match="needs step scores"):
        FORMAT.write(group_rollouts(without))


def test_our_own_scored_rollouts_come_back_the_same(graded: list[Group], here: Source):
    scored = [
        replace(group, rollouts=tuple(replace(r, step_scores=(0.5, float(r.sample_idx))) for r in group.rollouts))
        for group in graded
    ]
    back = group_rollouts([rollout for row in FORMAT.write(scored).rows for rollout in FORMAT.read(row, here)])
    for ours, theirs in zip(scored, back, strict=True):
        assert (ours.problem_id, ours.prompt) == (theirs.problem_id, theirs.prompt)
        assert [(r.response, r.step_scores, r.answer) for r in ours.rollouts] == [
            (r.response, r.step_scores, r.answer) for r in theirs.rollouts
        ]


@pytest.mark.parametrize("name", FILES)
def test_the_real_rows_are_written_back_as_they_were(name: str, real_data: Path):
    for source, row in read_rows(real_data / "search_and_learn_bon" / name):
        assert isinstance(row, dict)
        assert FORMAT.recognises(row)
        rollouts = list(FORMAT.read(row, source))
        assert FORMAT.write(group_rollouts(rollouts)).rows == [row]
        for rollout in rollouts:
            assert rollout.step_scores is not None
            assert len(rollout.step_scores) == len(rollout.response.split("\n\n"))


def test_a_file_cut_in_its_last_row_is_reported(real_data: Path, tmp_path: Path):
    whole = (real_data / "search_and_learn_bon" / FILES[0]).read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole[:-200])
    with pytest.raises(RecordError, match=r"cut\.jsonl:10: not valid JSON .* probably cut while it was written"):
        read_records([cut])
    records = read_records([cut], on_bad="skip")
    assert len(records.rollouts) == 9 * 4
    assert records.skipped == {"not valid JSON": 1}
