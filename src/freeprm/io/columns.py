"""Types of columns, ours and other projects', which pydantic checks, each with what an error message says of it.

class _Row(ForeignRow):
    question: Filled
    steps: Texts
    labels: Annotated[Labels, Each("step")]

row = _Row.of({"question": "2 + 2?", ...}, source)    # or a RecordError that says where, and what was expected
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationError,
)
from pydantic.fields import FieldInfo

from freeprm.errors import RecordError
from freeprm.io.rows import Row, Source, short
from freeprm.types import Message, Prompt

_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")
_COUNT = "{count}"
_SIGNS = {"+": True, "-": False}


@dataclass(frozen=True, slots=True)
class Expected:
    """Metadata of a type: what an error message says was expected.

    `{count}` in it is a number that differs from row to row: it is in the message, but not in the reason.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Each:
    """Metadata of a list with one entry for each of these, as `ForeignRow.check_each` checks."""

    of: str


@dataclass(frozen=True, slots=True)
class Called:
    """Metadata of a column of ours: other projects' names for it, to suggest --map, and advice if it is missing."""

    aliases: tuple[str, ...]
    advice: str = ""


def _text(value: str) -> str:
    if not value.isascii() and (half := _HALF_OF_A_PAIR.search(value)):
        raise ValueError(f"holds half of a surrogate pair, {half[0]!r}, at character {half.start()}")
    return value


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError
    return value


def _whole(value: Any) -> Any:
    """7 for 7.0, as tables write a column of whole numbers with gaps."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _identifier(value: Any) -> Any:
    if isinstance(value, list) and value:  # a conversation, where the prompt tells problems apart
        return json.dumps([_message(item) for item in value], ensure_ascii=False)
    value = _whole(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _answer(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _label(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError


def _signed_label(value: Any) -> bool:
    return _SIGNS[value] if isinstance(value, str) and value in _SIGNS else _label(value)


def _prompt(value: Any) -> Prompt:
    if isinstance(value, list | tuple) and value:
        return tuple(_message(item) for item in value)
    if not isinstance(value, str) or not value:
        raise ValueError
    return _text(value)


def _message(value: Any) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise ValueError
    if not isinstance(value.get("content"), str):
        raise ValueError
    _text(value["content"])
    return value


def _scores(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("["):
        raise ValueError(
            f"is the text {value[:60]!r}, which is no list: printed for people, perhaps with numbers left out; write "
            "the table anew as Parquet or JSON Lines"
        )
    return value


Text = Annotated[str, Strict(), AfterValidator(_text), Expected("text")]
"""May be empty."""
Filled = Annotated[Text, AfterValidator(_filled)]
"""More than whitespace."""
Texts = Annotated[list[Filled], Field(min_length=1), Expected("a list of texts, at least one, none of them empty")]
Replies = Annotated[list[Text], Field(min_length=1), Expected("a list of texts, at least one")]
Identifier = Annotated[
    str, Strict(), Field(min_length=1), AfterValidator(_text), BeforeValidator(_identifier),
    Expected("text or a whole number"),
]  # fmt: skip
"""Kept as text."""
Answer = Annotated[Text, BeforeValidator(_answer), Expected("text or a number")]
"""Kept as text."""
Index = Annotated[int, Strict(), Field(ge=0), BeforeValidator(_whole), Expected("a whole number from 0")]
OneOrZero = Annotated[bool, PlainValidator(_label), Expected("true, false, 1 or 0")]
Label = Annotated[bool, PlainValidator(_signed_label), Expected("true or false (or 1 or 0, or + or -)")]
Labels = Annotated[list[Label], Expected("a list of true and false (or 1 and 0, or + and -)")]
Score = Annotated[float, Strict(), Field(allow_inf_nan=False), Expected("a finite number")]
Number = Annotated[Score, Expected("a finite number, or null where there is none")]
Numbers = Annotated[tuple[Score, ...], BeforeValidator(_scores), Expected("a list of finite numbers")]
ManyNumbers = Annotated[list[Numbers], Expected("a list of lists of finite numbers")]
AnyPrompt = Annotated[Prompt, PlainValidator(_prompt), Expected('text or a list of {"role", "content"}')]


class OurColumns(BaseModel):
    """The columns of a rollout that a row has; none of them is null."""

    problem_id: Annotated[
        Identifier,
        Called(
            ("id", "idx", "index", "uid", "question_id", "unique_id"),
            advice=" Where the prompt tells problems apart: --map problem_id=prompt.",
        ),
    ]
    sample_idx: Annotated[Index, Called(("sample", "sample_id", "rollout_idx"))] | None = None
    prompt: Annotated[AnyPrompt, Called(("question", "problem", "instruction", "input", "query", "messages"))]
    response: Annotated[Text, Called(("completion", "output", "generation", "solution", "text"))]
    answer: (
        Annotated[Answer, Called(("gold", "gt", "ground_truth", "final_answer", "target", "reference_answer"))] | None
    ) = None
    pred: Annotated[Answer, Called(("prediction", "extracted_answer", "predicted_answer"))] | None = None
    correct: (
        Annotated[
            OneOrZero,
            Called(
                ("label", "is_correct", "correctness", "outcome", "passed", "acc"),
                advice=" Rollouts without labels get them by `freeprm grade`.",
            ),
        ]
        | None
    ) = None
    truncated: OneOrZero = False
    scorer: Annotated[Text, Called(("reward_model",))] | None = None
    step_scores: (
        Annotated[
            Numbers,
            Expected("a list of finite numbers, one a step"),
            Called(
                ("step_rewards", "scores", "prm_scores", "rewards"),
                advice=" Rollouts without scores get them by `freeprm score`.",
            ),
        ]
        | None
    ) = None
    score: Annotated[Score, Called(("rm_score", "reward", "agg_score"))] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """The metadata of a column of ours."""

    expected: str
    called: Called

    @property
    def is_text(self) -> bool:
        """A `42` in a cell of CSV stays text here."""
        return self.expected.startswith("text")


def _metadata(field: FieldInfo) -> tuple[list[Any], type[BaseModel] | None]:
    """Metadata of a field's type; or the type of the objects that it holds."""
    kinds, metadata = [field.annotation], [*field.metadata]
    for kind in kinds:  # grows by each kind's arguments
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return [], kind
        metadata += getattr(kind, "__metadata__", ())
        kinds += [] if _expected(metadata) else get_args(kind)
    return metadata, None


def _expected(metadata: Iterable[Any]) -> str:
    """What is expected according to metadata; empty if it does not say."""
    texts = [item.text for item in metadata if isinstance(item, Expected)]
    each = [f", one for each {item.of}" for item in metadata if isinstance(item, Each)]
    return "".join([*texts[-1:], *each])


def _column(field: FieldInfo) -> Column:
    metadata, _ = _metadata(field)
    called = next((item for item in metadata if isinstance(item, Called)), Called(()))
    return Column(_expected(metadata), called)


COLUMNS: Mapping[str, Column] = {name: _column(field) for name, field in OurColumns.model_fields.items()}
"""By name."""
CARRIED = ("first_error", "steps")
"""Columns carried along that some stages read, and that can be mapped like our own."""
_OURS = (*COLUMNS, *CARRIED, "step_labels")


class ForeignRow(BaseModel):
    """What is read of another project's row, a field for each column.

    A missing or wrong column is a RecordError: the message names the file, the line and the field, the reason only the
    field and what was expected, so that equal mistakes are counted together.
    """

    model_config = ConfigDict(protected_namespaces=())
    # Set on each instance. Private attributes of pydantic would take as long as all the rest of reading a row.
    _row: ClassVar[Row]
    _source: ClassVar[Source]
    _path: ClassVar[str]

    @classmethod
    def of(cls, row: Row, source: Source, *, path: str = "") -> Self:
        """Read a row, or an object in it.

        Args:
            row: the row or object.
            source: of the row.
            path: prefix of the object inside its row, for messages: `completions.3.`.
        """
        try:
            made = cls.model_validate(row)
        except ValidationError as error:
            raise _refusal(cls, error, row, source, path) from error
        made.__dict__.update(_row=row, _source=source, _path=path)
        return made

    def others(self, *kept: str) -> Row:
        """The columns that are no field, and those `kept`; one with a name of ours becomes `source_<name>`."""
        used = _names(type(self)).difference(kept)
        rest = {name: value for name, value in self._row.items() if name not in used}
        return {f"source_{name}" if name in _OURS else name: value for name, value in rest.items()}

    def check_each(self, of: str, count: int) -> None:
        """Raise a RecordError if a list with `Each(of)` has not `count` entries."""
        for name in _lists(type(self), of):
            entries = self._row.get(name)
            if entries is not None and len(entries) != count:
                raise self.wrong(name, found=f"has {len(entries)} for {count} {of}s")

    def wrong(self, name: str, expected: str = "", *, found: str = "", count: int = 0) -> RecordError:
        """The error for a field that is not as expected.

        Args:
            name: the field, or the path to one inside it: `label.steps.3.text`.
            expected: by default from the field's type; may hold `{count}`.
            found: what is wrong, if the value does not show it.
            count: see `Expected`.
        """
        expected = expected or _field_expects(type(self), name)[0]
        return _wrong(self._source, self._path + name, found or f"is {short(self._row.get(name))}", expected, count)


def id_from(*values: Any) -> str:
    """An id for a record without one: a hash of its contents, the same wherever it is read."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def found_in(error: ValidationError, field: str, value: Any) -> str:
    """What is wrong with a field's value, for messages: the validator's words, or else the value itself."""
    errors = [item for item in error.errors(include_url=False) if item["loc"][0] == field]
    messages = (str(item["ctx"]["error"]) for item in errors if item["type"] == "value_error")
    return next(filter(None, messages), f"is {short(value)}")


def _refusal(model: type[BaseModel], error: ValidationError, row: Row, source: Source, path: str) -> RecordError:
    """The first of pydantic's errors, as our error."""
    first = error.errors(include_url=False)[0]
    objects = "a list of objects, at least 1" if first["type"] in ("list_type", "too_short") else "an object"
    value: Any = row
    inner: type[BaseModel] | None = model
    expected = ""
    for part in first["loc"]:
        path += f"{part}."
        if isinstance(part, str) and inner is not None:
            expected, inner = _field_expects(inner, part)
            if part not in value:
                return RecordError(
                    f"{source}: {path[:-1]}: no such column; the row has {', '.join(map(str, value))}; "
                    f"expected {expected or objects}",
                    reason=f"no column {_without_indices(path[:-1])}",
                )
        value = value[part]
        if expected:
            break
    return _wrong(source, path[:-1], found_in(error, str(first["loc"][0]), value), expected or objects)


def _wrong(source: Source, path: str, found: str, expected: str, count: int = 0) -> RecordError:
    return RecordError(
        f"{source}: {path}: {found}; expected {expected.replace(_COUNT, str(count))}",
        reason=f"{_without_indices(path)} is not {expected.replace(_COUNT, 'n')}",
    )


def _without_indices(path: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", "", path)


def _field_expects(model: type[BaseModel], name: str) -> tuple[str, type[BaseModel] | None]:
    """What is expected in a field, and the type of the objects that it holds, if any."""
    metadata, inner = _metadata(next(item for key, item in model.model_fields.items() if name in (key, item.alias)))
    return _expected(metadata), inner


@cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


@cache
def _lists(model: type[BaseModel], of: str) -> tuple[str, ...]:
    """The fields with `Each(of)`."""
    return tuple(name for name in model.model_fields if f", one for each {of}" in _field_expects(model, name)[0])
