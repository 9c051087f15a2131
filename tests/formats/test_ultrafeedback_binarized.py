from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats.ultrafeedback_binarized import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import Rollout, group_rollouts

USER = {"role": "user", "content": "2 + 3?"}
CHOSEN, REJECTED = ([USER, {"role": "assistant", "content": text}] for text in ("5", "6"))
ROW: dict[str, Any] = {
    "prompt": "2 + 3?", "prompt_id": "ab", "chosen": CHOSEN, "rejected": REJECTED, "messages": CHOSEN,
    "score_chosen": 8.5, "score_rejected": 4.0,
}  # fmt: skip
FORMAT = PLUGIN()


def test_the_two_replies_come_with_their_scores(here: Source):
    chosen, rejected = FORMAT.read(ROW, here)
    assert chosen.prompt == (USER,)
    assert [(one.response, one.correct, one.score) for one in (chosen, rejected)] == [
        ("5", True, 8.5),
        ("6", False, 4.0),
    ]
    assert chosen.extra == {"prompt_id": "ab"}
    assert FORMAT.write(group_rollouts([chosen, rejected])).rows == [ROW]


def test_only_the_conversations_and_the_scores_are_needed(here: Source):
    row = {name: ROW[name] for name in ("chosen", "rejected", "score_chosen", "score_rejected")}
    assert FORMAT.recognises(row)
    assert [one.response for one in FORMAT.read(row, here)] == ["5", "6"]


def test_a_broken_row_is_refused_with_its_place_and_field(here: Source):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: score_chosen: is '8'; expected a finite number"):
        list(FORMAT.read({**ROW, "score_chosen": "8"}, here))
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: chosen: is .*; expected text or a list"):
        list(FORMAT.read({**ROW, "chosen": []}, here))


def test_pairs_without_scores_are_counted_and_refused_where_there_are_no_others():
    fields: dict[str, Any] = {"prompt": "?", "response": "a"}
    without = [
        Rollout(**fields, problem_id="p", sample_idx=0, correct=True),
        Rollout(**fields, problem_id="p", sample_idx=1, correct=False),
    ]
    scored = [
        Rollout(**fields, problem_id="q", sample_idx=0, correct=True, score=2.0),
        Rollout(**fields, problem_id="q", sample_idx=1, correct=False, score=1.0),
    ]
    written = FORMAT.write(group_rollouts([*without, *scored]))
    assert [(row["score_chosen"], row["score_rejected"]) for row in written.rows] == [(2.0, 1.0)]
    assert written.skipped == {"pairs without scores (`score`)": 1}
    with pytest.raises(DataError, match="1 pairs without scores"):
        FORMAT.write(group_rollouts(without))
