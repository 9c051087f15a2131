"""What each of our columns may hold: how a value of JSON becomes ours, and what a message says was expected."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from freeprm.types import Prompt

_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a rollout."""

    convert: Callable[[Any], Any]
    """Takes a value that is not null; raises ValueError, with what is wrong with it if that is not plain to see."""
    expected: str
    """What a message says was expected."""
    aliases: tuple[str, ...] = ()
    """What others call it, to suggest --map; never read without being asked for."""
    advice: str = ""
    """What to do where it is missing."""
    is_text: bool = False
    """Text, whatever it looks like: a `42` in a cell of CSV stays text."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    if half := _HALF_OF_A_PAIR.search(value):
        raise ValueError(f"holds half of a surrogate pair, {half[0]!r}, at character {half.start()}")
    return value


def _identifier(value: Any) -> str:
    if isinstance(value, list) and value:  # a conversation, where the prompt tells problems apart
        value = json.dumps([_message(item) for item in value], ensure_ascii=False)
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError
    return _text(str(value))


def _answer(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    return _text(str(value))


def _index(value: Any) -> int:
    index = _whole(value)
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ValueError
    return index


def _whole(value: Any) -> Any:
    """7 for 7.0, which is what tables make of it in a column of whole numbers with gaps."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _label(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError


def _prompt(value: Any) -> Prompt:
    if isinstance(value, list) and value:
        return tuple(_message(item) for item in value)
    if value in ("", []):
        raise ValueError
    return _text(value)


def _message(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise ValueError
    _text(value.get("content"))
    return value


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _scores(value: Any) -> tuple[float, ...]:
    if isinstance(value, str) and value.startswith("["):
        raise ValueError(
            f"is the text {value[:60]!r}, which is no list: printed for people, perhaps with numbers left out; write "
            "the table anew as Parquet or JSON Lines"
        )
    if not isinstance(value, list):
        raise ValueError
    return tuple(_score(item) for item in value)


COLUMNS: Mapping[str, Column] = {
    "problem_id": Column(
        convert=_identifier,
        expected="text or a whole number",
        aliases=("id", "idx", "index", "uid", "question_id", "unique_id"),
        advice=" Where the prompt tells problems apart: --map problem_id=prompt.",
        is_text=True,
    ),
    "sample_idx": Column(
        convert=_index, expected="a whole number from 0", aliases=("sample", "sample_id", "rollout_idx")
    ),
    "prompt": Column(
        convert=_prompt,
        expected='text or a list of {"role", "content"}',
        aliases=("question", "problem", "instruction", "input", "query", "messages"),
        is_text=True,
    ),
    "response": Column(
        convert=_text,
        expected="text",
        aliases=("completion", "output", "generation", "solution", "text"),
        is_text=True,
    ),
    "answer": Column(
        convert=_answer,
        expected="text or a number",
        aliases=("gold", "gt", "ground_truth", "final_answer", "target", "reference_answer"),
        is_text=True,
    ),
    "pred": Column(
        convert=_answer,
        expected="text or a number",
        aliases=("prediction", "extracted_answer", "predicted_answer"),
        is_text=True,
    ),
    "correct": Column(
        convert=_label,
        expected="true, false, 1 or 0",
        aliases=("label", "is_correct", "correctness", "outcome", "passed", "acc"),
        advice=" Rollouts without labels get them by `freeprm grade`.",
    ),
    "truncated": Column(convert=_label, expected="true, false, 1 or 0"),
    "scorer": Column(convert=_text, expected="text", aliases=("reward_model",), is_text=True),
    "step_scores": Column(
        convert=_scores,
        expected="a list of finite numbers, one a step",
        aliases=("step_rewards", "scores", "prm_scores", "rewards"),
        advice=" Rollouts without scores get them by `freeprm score`.",
    ),
    "score": Column(convert=_score, expected="a finite number", aliases=("rm_score", "reward", "agg_score")),
}
"""By our name of the column."""
