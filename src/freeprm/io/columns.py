"""What columns may hold, ours and those of other projects: types that pydantic checks, and what a message says of them.

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
    """What a message says was expected, as metadata of a type.

    It may hold `{count}`, a number that differs from row to row: the message has it, the reason not.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Each:
    """Metadata of a list: it has one entry for each of these, to which `ForeignRow.check_each` holds it."""

    of: str


@dataclass(frozen=True, slots=True)
class Called:
    """Metadata of a column of ours: what others call it, to suggest --map, and what to do where it is missing."""

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
    """7 for 7.0, which is what tables make of it in a column of whole numbers with gaps."""
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
"""Which may be empty."""
Filled = Annotated[Text, AfterValidator(_filled)]
"""A text with more than whitespace in it."""
Texts = Annotated[list[Filled], Field(min_length=1), Expected("a list of texts, at least one, none of them empty")]
Replies = Annotated[list[Text], Field(min_length=1), Expected("a list of texts, at least one")]
Identifier = Annotated[
    str, Strict(), Field(min_length=1), AfterValidator(_text), BeforeValidator(_identifier),
    Expected("text or a whole number"),
]  # fmt: skip
"""As text."""
Answer = Annotated[Text, BeforeValidator(_answer), Expected("text or a number")]
"""As text."""
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
    """The columns of a rollout, as far as a row has them; none of them is null."""

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
    """What is said of a column of ours."""

    expected: str
    """What a message says was expected."""
    called: Called

    @property
    def is_text(self) -> bool:
        """Text, whatever it looks like: a `42` in a cell of CSV stays text."""
        return self.expected.startswith("text")


def _metadata(field: FieldInfo) -> tuple[list[Any], type[BaseModel] | None]:
    """What a field's type says of itself; or of one that holds objects, what they are."""
    kinds, metadata = [field.annotation], [*field.metadata]
    for kind in kinds:  # grows by what each is made of
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return [], kind
        metadata += getattr(kind, "__metadata__", ())
        kinds += [] if _expected(metadata) else get_args(kind)
    return metadata, None


def _expected(metadata: Iterable[Any]) -> str:
    """What metadata says is expected; empty where it says nothing."""
    texts = [item.text for item in metadata if isinstance(item, Expected)]
    each = [f", one for each {item.of}" for item in metadata if isinstance(item, Each)]
    return "".join([*texts[-1:], *each])


def _column(field: FieldInfo) -> Column:
    metadata, _ = _metadata(field)
    called = next((item for item in metadata if isinstance(item, Called)), Called(()))
    return Column(_expected(metadata), called)


COLUMNS: Mapping[str, Column] = {name: _column(field) for name, field in OurColumns.model_fields.items()}
"""By our name of the column."""
CARRIED = ("first_error", "steps")
"""Columns that some stages read among those carried along, and that can be mapped like our own."""
_OURS = (*COLUMNS, *CARRIED, "step_labels")


class ForeignRow(BaseModel):
    """What is read of another project's row, a field a column.

    A column that is absent or something else is a RecordError: the message names the file, the line and the field, the
    reason only the field and what was expected, so that equal mistakes can be counted together.
    """

    model_config = ConfigDict(protected_namespaces=())
    # Of each instance. Private attributes of pydantic would take as long as all the rest of reading a row.
    _row: ClassVar[Row]
    _source: ClassVar[Source]
    _path: ClassVar[str]

    @classmethod
    def of(cls, row: Row, source: Source, *, path: str = "") -> Self:
        """What the row says, or an object in it.

        Args:
            row: what is read.
            source: where the row stood.
            path: what leads to the object inside its row, for messages: `completions.3.`.

        Raises:
            RecordError: as above.
        """
        try:
            made = cls.model_validate(row)
        except ValidationError as error:
            raise _refusal(cls, error, row, source, path) from error
        made.__dict__.update(_row=row, _source=source, _path=path)
        return made

    def others(self, *kept: str) -> Row:
        """The columns that are no field, and those `kept`; one that bears a name of ours is `source_<name>`."""
        used = _names(type(self)).difference(kept)
        rest = {name: value for name, value in self._row.items() if name not in used}
        return {f"source_{name}" if name in _OURS else name: value for name, value in rest.items()}

    def check_each(self, of: str, count: int) -> None:
        """Refuse a list that has not one entry for each of what it is about, `Each(of)`.

        Raises:
            RecordError: names the field, and how many entries it has.
        """
        for name in _lists(type(self), of):
            entries = self._row.get(name)
            if entries is not None and len(entries) != count:
                raise self.wrong(name, found=f"has {len(entries)} for {count} {of}s")

    def wrong(self, name: str, expected: str = "", *, found: str = "", count: int = 0) -> RecordError:
        """The error for a field that is not as expected.

        Args:
            name: of the field, or the path to one inside it: `label.steps.3.text`.
            expected: what the field's type says, if not given; may hold `{count}`.
            found: what is wrong, if the value does not show it.
            count: see `Expected`.
        """
        expected = expected or _said(type(self), name)[0]
        return _wrong(self._source, self._path + name, found or f"is {short(self._row.get(name))}", expected, count)


def id_from(*values: Any) -> str:
    """An id for what comes without one: a hash of what it says, the same wherever it is read."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def found_in(error: ValidationError, field: str, value: Any) -> str:
    """What is wrong with a field's value, for messages: what its type says, or else the value itself."""
    errors = [item for item in error.errors(include_url=False) if item["loc"][0] == field]
    said = (str(item["ctx"]["error"]) for item in errors if item["type"] == "value_error")
    return next(filter(None, said), f"is {short(value)}")


def _refusal(model: type[BaseModel], error: ValidationError, row: Row, source: Source, path: str) -> RecordError:
    """The first of what pydantic found, as our error."""
    first = error.errors(include_url=False)[0]
    objects = "a list of objects, at least 1" if first["type"] in ("list_type", "too_short") else "an object"
    value: Any = row
    inner: type[BaseModel] | None = model
    expected = ""
    for part in first["loc"]:
        path += f"{part}."
        if isinstance(part, str) and inner is not None:
            expected, inner = _said(inner, part)
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


def _said(model: type[BaseModel], name: str) -> tuple[str, type[BaseModel] | None]:
    """What is expected in a field; or of one that holds objects, what they are."""
    metadata, inner = _metadata(next(item for key, item in model.model_fields.items() if name in (key, item.alias)))
    return _expected(metadata), inner


@cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


@cache
def _lists(model: type[BaseModel], of: str) -> tuple[str, ...]:
    """The fields that have one entry for each of these."""
    return tuple(name for name in model.model_fields if f", one for each {of}" in _said(model, name)[0])
