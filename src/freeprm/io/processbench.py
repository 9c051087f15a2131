"""ProcessBench's file format in: steps with the index of the first wrong one.

    {"id", "generator", "problem", "steps": [text], "final_answer_correct": bool, "label": -1 or a step's index}

A list in a .json file, or a row a line. The same rows with `step_scores` (and `scorer`) added are read as
well. What a rollout keeps of them: `correct` is final_answer_correct, and `extra` holds `steps`, which are
to be scored as given, `first_error` (null where the label is -1), and every other column.

Source: Zheng et al. 2024, arXiv:2412.06559.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from freeprm.errors import RecordError
from freeprm.io.jsonl import Row, Source, read_rows
from freeprm.types import Rollout

_COLUMNS = ("id", "problem", "steps", "final_answer_correct", "label")


def is_processbench(path: Path) -> bool:
    """Whether the first row of a file or folder has ProcessBench's columns.

    Raises:
        RecordError: the path does not exist, or is not readable as rows.
    """
    return any(isinstance(row, dict) and row.keys() >= set(_COLUMNS) for _, row in islice(read_rows(path), 1))


def read_processbench(path: Path) -> list[Rollout]:
    """Rollouts from a file in ProcessBench's format; a response is its steps joined by blank lines.

    Raises:
        RecordError: names the file, the entry, the field, and what was expected.
    """
    rollouts: list[Rollout] = []
    seen: dict[tuple[str, str | None], Source] = {}
    for source, row in read_rows(path):
        if isinstance(row, RecordError):
            raise row
        rollout = _rollout(row, source)
        key = (rollout.problem_id, rollout.scorer)
        if key in seen:
            raise RecordError(f"{source}: id: {rollout.problem_id!r} is already at {seen[key]}; expected each once")
        seen[key] = source
        rollouts.append(rollout)
    if not rollouts:
        raise RecordError(f"{path}: no record")
    return rollouts


def _rollout(row: Row, source: Source) -> Rollout:
    for name in _COLUMNS:
        if name not in row:
            raise RecordError(f"{source}: {name}: no such column. The row has {', '.join(map(str, row))}.")
    steps = row["steps"]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise _wrong(source, "steps", steps, "a list of texts, at least one")
    label = row["label"]
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
        raise _wrong(source, "label", label, f"-1 for no error, or the index of one of the {len(steps)} steps")
    for name in ("id", "problem"):
        if not isinstance(row[name], str):
            raise _wrong(source, name, row[name], "text")
    if not isinstance(row["final_answer_correct"], bool):
        raise _wrong(source, "final_answer_correct", row["final_answer_correct"], "true or false")
    scorer = row.get("scorer")
    if not isinstance(scorer, str | None):
        raise _wrong(source, "scorer", scorer, "text")
    used = {*_COLUMNS, "step_scores", "scorer"}
    return Rollout(
        problem_id=row["id"],
        sample_idx=0,
        prompt=row["problem"],
        response="\n\n".join(steps),
        correct=row["final_answer_correct"],
        scorer=scorer,
        step_scores=_step_scores(row, source, steps),
        extra={
            "steps": steps,
            "first_error": None if label == -1 else label,
            **{key: value for key, value in row.items() if key not in used},
        },
    )


def _step_scores(row: Row, source: Source, steps: Sequence[str]) -> tuple[float, ...] | None:
    scores = row.get("step_scores")
    if scores is None:
        return None
    numbers = isinstance(scores, list) and all(isinstance(s, int | float) and not isinstance(s, bool) for s in scores)
    if not numbers or len(scores) != len(steps):
        raise _wrong(source, "step_scores", scores, f"{len(steps)} numbers, one a step")
    return tuple(map(float, scores))


def _wrong(source: Source, name: str, value: Any, expected: str) -> RecordError:
    return RecordError(f"{source}: {name}: is {str(value)[:80]!r}; expected {expected}")
