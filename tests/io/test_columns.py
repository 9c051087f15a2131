"""Other projects' rows: what their fields may hold, and how a message names what is none of it."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from freeprm.errors import RecordError
from freeprm.io.columns import (
    Answer,
    AnyPrompt,
    Each,
    Filled,
    ForeignRow,
    Identifier,
    Index,
    Label,
    Labels,
    ManyNumbers,
    Number,
    Replies,
    Text,
    Texts,
    id_from,
)
from freeprm.io.rows import Source

HERE = Source(Path("rows.jsonl"), 3)


class Fields(ForeignRow):
    text: Filled = "-"
    reply: Text = "-"
    texts: Texts = Field(default=["-"])
    replies: Replies = Field(default=["-"])
    number: Number | None = None
    prompt: AnyPrompt = "-"
    answer: Answer | None = None
    identifier: Identifier | None = None
    index: Index = 0
    label: Label = True


class Scored(ForeignRow):
    labels: Annotated[Labels, Each("step")] | None = None
    scores: Annotated[ManyNumbers, Each("answer")] | None = None


class Step(BaseModel):
    text: Filled
    rating: Text


class Labelling(BaseModel):
    steps: Annotated[list[Step], Field(min_length=1)]


class Nested(ForeignRow):
    label: Labelling


def fields(**row: Any) -> Fields:
    return Fields.of(row, HERE)


def scored(**row: Any) -> Scored:
    return Scored.of(row, HERE)


def test_a_field_is_read_as_what_it_is():
    row = fields(text="a", texts=["a", "b"], number=2, prompt=[{"role": "user", "content": "?"}], answer=4)
    assert row.text == "a"
    assert row.texts == ["a", "b"]
    assert row.number == 2.0
    assert fields(number=None).number is row.identifier is fields(answer=None).answer is None
    assert row.prompt == ({"role": "user", "content": "?"},)
    assert row.answer == "4"


@pytest.mark.parametrize(("value", "label"), [(True, True), (1, True), (0.0, False), ("+", True), ("-", False)])
def test_labels_are_read_however_they_are_written(value: object, label: bool):
    assert fields(label=value).label is label


@pytest.mark.parametrize("value", [2, -1, "true", "1", "", None, [True], 0.5])
def test_any_other_label_is_refused(value: object):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: label: is .*; expected true or false \(or 1 or 0"):
        fields(label=value)


@pytest.mark.parametrize("value", ["", "  \n", None, 3, ["a"], "half of a \ud83d"])
def test_what_is_no_text_is_refused(value: object):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: text: (is|holds) .*; expected text$"):
        fields(text=value)


def test_a_reply_may_be_empty():
    assert fields(reply="").reply == ""
    assert fields(replies=["", "a"]).replies == ["", "a"]


@pytest.mark.parametrize("value", [[], "ab", ["a", ""], ["a", 1], None, {"a": "b"}])
def test_what_is_no_list_of_texts_is_refused(value: object):
    with pytest.raises(RecordError, match=r"texts: is .*; expected a list of texts, at least one"):
        fields(texts=value)


def test_labels_are_one_a_step():
    row = scored(labels=[1, "-"])
    assert row.labels == [True, False]
    row.check_each("step", 2)
    row.check_each("answer", 3)
    with pytest.raises(
        RecordError, match=r"labels: has 2 for 3 steps; expected a list of true and false .*, one for each step"
    ):
        row.check_each("step", 3)


def test_step_scores_are_one_list_for_each():
    row = scored(scores=[[1, 0.5], []])
    assert row.scores == [(1.0, 0.5), ()]
    with pytest.raises(RecordError, match="scores: has 2 for 1 answers"):
        row.check_each("answer", 1)
    with pytest.raises(
        RecordError, match=r"scores: is .*; expected a list of lists of finite numbers, one for each answer"
    ):
        scored(scores=[1])


@pytest.mark.parametrize("value", [True, "1", float("inf"), [1]])
def test_what_is_no_number_is_refused(value: object):
    with pytest.raises(RecordError, match=r"number: is .*; expected a finite number, or null where there is none"):
        fields(number=value)


def test_a_field_inside_is_named_whole_but_counted_without_its_index():
    def steps(*given: Any) -> Nested:
        return Nested.of({"label": {"steps": [{"text": "a", "rating": "+"}, *given]}}, HERE)

    assert steps().label.steps[0].text == "a"
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: label\.steps\.1\.text: is 1; expected text") as error:
        steps({"text": 1, "rating": "+"})
    assert error.value.reason == "label.steps.text is not text"
    with pytest.raises(
        RecordError, match=r"label\.steps\.1\.rating: no such column; the row has text; expected"
    ) as error:
        steps({"text": "b"})
    assert error.value.reason == "no column label.steps.rating"
    for given in ("text", []):
        with pytest.raises(
            RecordError, match=r"^rows\.jsonl:3: label\.steps: is .*; expected a list of objects, at least 1"
        ):
            Nested.of({"label": {"steps": given}}, HERE)


def test_an_object_inside_that_is_read_by_itself_is_named_with_what_leads_to_it():
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: answers\.2\.number: is 'x'; expected a finite") as error:
        Fields.of({"number": "x"}, HERE, path="answers.2.")
    assert error.value.reason.startswith("answers.number is not")


@pytest.mark.parametrize("value", [-1, True, "1", None, 1.5])
def test_an_index_is_a_whole_number(value: object):
    assert fields(index=7.0).index == 7  # as tables make of it in a column with gaps
    with pytest.raises(RecordError, match=r"index: is .*; expected a whole number from 0"):
        fields(index=value)


def test_other_columns_do_not_pass_for_ours():
    row = fields(text="a", pred="the chosen response", level=3, steps=["a"])
    assert row.others() == {"source_pred": "the chosen response", "level": 3, "source_steps": ["a"]}
    assert [*row.others("text")] == ["text", "source_pred", "level", "source_steps"]


def test_a_long_value_is_cut_in_messages():
    with pytest.raises(RecordError) as error:
        fields(number=["x" * 1000])
    assert len(str(error.value)) < 250


def test_an_id_depends_on_all_that_it_is_made_from():
    turns = ({"role": "user", "content": "?"},)
    assert id_from(turns) == id_from(turns)
    assert len({id_from("a"), id_from("b"), id_from("a", "b"), id_from(turns), id_from("ки")}) == 5
