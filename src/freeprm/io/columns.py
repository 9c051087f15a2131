"""What each of our columns may hold: how a value of JSON becomes ours, and what a message says was expected."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from freeprm.errors import RecordError
from freeprm.io.rows import Row, Source, short
from freeprm.types import Prompt

T = TypeVar("T")

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

_OURS = (*COLUMNS, "steps", "step_labels", "first_error")
_COUNT = "{count}"
_SIGNS = {"+": True, "-": False}


@dataclass(frozen=True, slots=True)
class Fields:
    """A row, or an object inside one, with where it stood.

    What is expected may hold `{count}`: a number that differs from row to row. The message has it, the reason not.

    What reads a field raises RecordError where it is absent or something else: the message names the file, the line
    and the field, the reason only the field and what was expected, so that equal mistakes can be counted together.
    """

    row: Mapping[str, Any]
    source: Source
    path: str = ""
    """What leads to the object inside its row: `label.steps.3.`."""

    def text(self, name: str, *, blank: bool = False) -> str:
        """A text; with more than whitespace in it, unless it may be `blank`."""
        return self.get(name, lambda value: _filled(value, blank=blank), expected="text")

    def texts(self, name: str) -> list[str]:
        """A list of texts, each with more than whitespace in it, at least one."""
        convert = _list_of(lambda value: _filled(value, blank=False), at_least=1)
        return self.get(name, convert, expected="a list of texts, at least one, none of them empty")

    def label(self, name: str) -> bool:
        """True or false, which may be written 1 and 0, or + and -."""
        return self.get(name, _any_label, expected="true or false (or 1 or 0, or + or -)")

    def labels(self, name: str, *, count: int, of: str) -> list[bool]:
        """So many labels, one for each of what they are the labels `of`."""
        expected = f"a list of true and false (or 1 and 0, or + and -), one for each {of}"
        labels = self.get(name, _list_of(_any_label), expected=expected)
        if len(labels) != count:
            raise self.wrong(name, expected, found=f"has {len(labels)} for {count} {of}s")
        return labels

    def number(self, name: str) -> float | None:
        """A finite number; None where it is null or absent."""
        if not self.has(name):
            return None
        return self.get(name, _number, expected="a finite number, or null where there is none")

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        return tuple(self.get(name, _list_of(_number), expected="a list of finite numbers"))

    def replies(self, name: str) -> list[str]:
        """A list of texts, at least one, each of which may be empty."""
        convert = _list_of(lambda value: _filled(value, blank=True), at_least=1)
        return self.get(name, convert, expected="a list of texts, at least one")

    def step_scores(self, name: str, *, count: int, of: str) -> list[tuple[float, ...]]:
        """So many lists of finite numbers, one for each of what they are the scores `of`."""
        expected = f"a list of lists of finite numbers, one for each {of}"
        scores = self.get(name, _list_of(COLUMNS["step_scores"].convert), expected=expected)
        if len(scores) != count:
            raise self.wrong(name, expected, found=f"has {len(scores)} for {count} {of}s")
        return scores

    def prompt(self, name: str) -> Prompt:
        """A text that is not empty, or a conversation."""
        prompt: Prompt = self._column(name, "prompt")
        return prompt

    def answer(self, name: str) -> str | None:
        """A text or a number, as text; None where it is null or absent."""
        answer: str | None = self._column(name, "answer") if self.has(name) else None
        return answer

    def identifier(self, name: str) -> str | None:
        """A text or a whole number, as text; None where it is null or absent."""
        identifier: str | None = self._column(name, "problem_id") if self.has(name) else None
        return identifier

    def index(self, name: str, *, count: int) -> int:
        """The index of one of so many things, from 0."""
        convert = partial(_index_below, count=count)
        return self.get(name, convert, expected="an index below {count}, from 0", count=count)

    def indices(self, name: str, *, count: int) -> list[int]:
        """A list of such indices."""
        convert = _list_of(partial(_index_below, count=count))
        return self.get(name, convert, expected="a list of indices below {count}, from 0", count=count)

    def inside(self, name: str) -> "Fields":
        """The object in a field."""
        return Fields(self.get(name, _object, expected="an object"), self.source, f"{self.path}{name}.")

    def each(self, name: str, *, at_least: int = 1) -> list["Fields"]:
        """The objects of a list."""
        rows = self.get(name, _list_of(_object, at_least=at_least), expected=f"a list of objects, at least {at_least}")
        return [Fields(row, self.source, f"{self.path}{name}.{index}.") for index, row in enumerate(rows)]

    def get(self, name: str, convert: Callable[[Any], T], *, expected: str, count: int = 0) -> T:
        """The value that `convert` makes of a field's; it raises ValueError where the value is not as `expected`."""
        if name not in self.row:
            raise RecordError(
                f"{self.source}: {self.path}{name}: no such column; the row has "
                f"{', '.join(map(str, self.row))}; expected {expected.replace(_COUNT, str(count))}",
                reason=f"no column {_without_indices(self.path)}{name}",
            )
        try:
            return convert(self.row[name])
        except (ValueError, OverflowError) as error:
            raise self.wrong(name, expected, found=str(error), count=count) from error

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.row.get(name) is not None

    def others(self, *used: str) -> Row:
        """The fields that were not used; one that bears a name of ours, but means another thing, as `source_<name>`."""
        rest = {name: value for name, value in self.row.items() if name not in used}
        return {f"source_{name}" if name in _OURS else name: value for name, value in rest.items()}

    def wrong(self, name: str, expected: str, *, found: str = "", count: int = 0) -> RecordError:
        """The error for a field that is not as expected; `found` says what is wrong if the value does not show it."""
        found = found or f"is {short(self.row.get(name))}"
        return RecordError(
            f"{self.source}: {self.path}{name}: {found}; expected {expected.replace(_COUNT, str(count))}",
            reason=f"{_without_indices(self.path)}{name} is not {expected.replace(_COUNT, 'n')}",
        )

    def _column(self, name: str, ours: str) -> Any:
        """The value of what means the same as a column of ours."""
        return self.get(name, COLUMNS[ours].convert, expected=COLUMNS[ours].expected)


def id_from(*values: Any) -> str:
    """An id for what comes without one: a hash of what it says, the same wherever it is read."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def _filled(value: Any, *, blank: bool) -> str:
    text: str = COLUMNS["response"].convert(value)
    if not blank and not text.strip():
        raise ValueError
    return text


def _any_label(value: Any) -> bool:
    if isinstance(value, str) and value in _SIGNS:
        return _SIGNS[value]
    return bool(COLUMNS["correct"].convert(value))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _index_below(value: Any, count: int) -> int:
    index: int = COLUMNS["sample_idx"].convert(value)
    if index >= count:
        raise ValueError
    return index


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError
    return value


def _list_of(convert: Callable[[Any], T], *, at_least: int = 0) -> Callable[[Any], list[T]]:
    def convert_all(value: Any) -> list[T]:
        if not isinstance(value, list) or len(value) < at_least:
            raise ValueError
        return [convert(item) for item in value]

    return convert_all


def _without_indices(path: str) -> str:
    return re.sub(r"\.\d+\.", ".", path)
