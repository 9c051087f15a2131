from typing import Any

import pytest

from freeprm.errors import RecordError
from freeprm.formats._reading import recognise
from freeprm.formats.reward_bench import PLUGIN
from freeprm.io.rows import Source
from freeprm.types import group_rollouts

ROW: dict[str, Any] = {"id": 7, "prompt": "2 + 3?", "chosen": ["5"], "rejected": ["6", "7"], "subset": "Math"}
FORMAT = PLUGIN()


def test_the_replies_of_both_sides_answer_one_problem(here: Source):
    rollouts = list(FORMAT.read(ROW, here))
    assert [(one.problem_id, one.sample_idx, one.response, one.correct) for one in rollouts] == [
        ("7", 0, "5", True), ("7", 1, "6", False), ("7", 2, "7", False),
    ]  # fmt: skip
    assert rollouts[2].extra == {"subset": "Math"}
    (row,) = FORMAT.write(group_rollouts(rollouts)).rows
    assert (row["chosen"], row["rejected"], row["total_completions"]) == (["5"], ["6", "7"], 3)


def test_one_reply_a_side_is_a_preference():
    first = {"prompt": "2 + 3?", "chosen": "5", "chosen_model": "a", "rejected": "6", "subset": "math-prm", "id": 30}
    assert recognise(first) == ["trl_preference"]
    assert recognise(ROW) == ["reward_bench"]
    messages = {**first, "chosen": [{"role": "assistant", "content": "5"}], "rejected": [{"role": "assistant"}]}
    assert recognise(messages) == ["trl_preference"]


def test_a_broken_row_is_refused_with_its_place_and_field(here: Source):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: rejected: is .*; expected a list of texts"):
        list(FORMAT.read({**ROW, "rejected": []}, here))
