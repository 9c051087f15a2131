"""Anyone's own problems."""

import json
from pathlib import Path
from typing import Any

import pytest

from freeprm.datasets.rows import RowsDataset
from freeprm.errors import RecordError
from freeprm.types import Problem


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[Problem]:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(RowsDataset(path=file).problems("test", limit=None, seed=0))


def test_a_prompt_is_enough(tmp_path: Path):
    first, second = read(
        tmp_path, {"prompt": "One?"}, {"prompt": "Two?", "problem_id": 7, "answer": 2, "topic": "sums"}
    )
    assert first == Problem(problem_id="mine-0", prompt="One?")
    assert second == Problem(problem_id="7", prompt="Two?", answer="2", extra={"topic": "sums"})


def test_a_prompt_may_be_a_conversation(tmp_path: Path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}]
    (problem,) = read(tmp_path, {"prompt": turns})
    assert problem.prompt == tuple(turns)


def test_what_an_old_rollout_said_is_not_taken_along(tmp_path: Path):
    (problem,) = read(tmp_path, {"prompt": "One?", "response": "1", "correct": True, "score": 0.3, "level": 2})
    assert problem.extra == {"level": 2}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"question": "One?"}, "prompt: no such column; the row has question"),
        ({"prompt": []}, "prompt: is"),
        ({"prompt": [{"role": "user"}]}, "prompt: is"),
        ({"prompt": "One?", "problem_id": 1.5}, "problem_id: is 1.5"),
        ({"prompt": "One?", "answer": [1]}, "answer: is"),
    ],
)
def test_a_broken_row_is_refused_by_line_and_field(tmp_path: Path, row: dict[str, Any], field: str):
    with pytest.raises(RecordError, match=r"mine\.jsonl:2: " + field):
        read(tmp_path, {"prompt": "Zero?"}, row)
