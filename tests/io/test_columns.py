from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import RecordError
from freeprm.io.columns import Fields, id_from
from freeprm.io.rows import Source

HERE = Source(Path("rows.jsonl"), 3)


def fields(**row: Any) -> Fields:
    return Fields(row, HERE)


def test_a_field_is_read_as_what_it_is():
    row = fields(text="a", texts=["a", "b"], number=2, none=None, prompt=[{"role": "user", "content": "?"}], answer=4)
    assert row.text("text") == "a"
    assert row.texts("texts") == ["a", "b"]
    assert row.number("number") == 2.0
    assert row.number("none") is row.number("absent") is row.answer("none") is row.identifier("absent") is None
    assert row.prompt("prompt") == ({"role": "user", "content": "?"},)
    assert row.answer("answer") == "4"


@pytest.mark.parametrize(("value", "label"), [(True, True), (1, True), (0.0, False), ("+", True), ("-", False)])
def test_labels_are_read_however_they_are_written(value: object, label: bool):
    assert fields(label=value).label("label") is label


@pytest.mark.parametrize("value", [2, -1, "true", "1", "", None, [True], 0.5])
def test_any_other_label_is_refused(value: object):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: label: is .*; expected true or false \(or 1 or 0"):
        fields(label=value).label("label")


@pytest.mark.parametrize("value", ["", "  \n", None, 3, ["a"], "half of a \ud83d"])
def test_what_is_no_text_is_refused(value: object):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: problem: (is|holds) .*; expected text$"):
        fields(problem=value).text("problem")


def test_a_reply_may_be_empty():
    assert fields(reply="").text("reply", blank=True) == ""
    assert fields(replies=["", "a"]).replies("replies") == ["", "a"]


@pytest.mark.parametrize("value", [[], "ab", ["a", ""], ["a", 1], None, {"a": "b"}])
def test_what_is_no_list_of_texts_is_refused(value: object):
    with pytest.raises(RecordError, match=r"steps: is .*; expected a list of texts, at least one"):
        fields(steps=value).texts("steps")


def test_labels_are_one_a_step():
    assert fields(labels=[1, "-"]).labels("labels", count=2, of="step") == [True, False]
    with pytest.raises(
        RecordError, match=r"labels: has 2 for 3 steps; expected a list of true and false .*, one for each step"
    ):
        fields(labels=[1, 0]).labels("labels", count=3, of="step")


def test_step_scores_are_one_list_for_each():
    assert fields(scores=[[1, 0.5], []]).step_scores("scores", count=2, of="answer") == [(1.0, 0.5), ()]
    with pytest.raises(RecordError, match="scores: has 1 for 2 answers"):
        fields(scores=[[1]]).step_scores("scores", count=2, of="answer")
    with pytest.raises(
        RecordError, match=r"scores: is .*; expected a list of lists of finite numbers, one for each answer"
    ):
        fields(scores=[1]).step_scores("scores", count=1, of="answer")


def test_a_field_inside_is_named_whole_but_counted_without_its_index():
    row = fields(label={"steps": [{"text": "a"}, {"text": 1}]})
    steps = row.inside("label").each("steps")
    assert steps[0].text("text") == "a"
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: label\.steps\.1\.text: is 1; expected text") as error:
        steps[1].text("text")
    assert error.value.reason == "label.steps.text is not text"
    with pytest.raises(
        RecordError, match=r"label\.steps\.0\.rating: no such column; the row has text; expected"
    ) as error:
        steps[0].text("rating")
    assert error.value.reason == "no column label.steps.rating"


def test_an_index_is_of_one_of_the_things_there_are():
    assert fields(chosen=1).index("chosen", count=2) == 1
    for value in (2, -1, True, "1", None):
        with pytest.raises(RecordError, match=r"chosen: is .*; expected an index below 2, from 0"):
            fields(chosen=value).index("chosen", count=2)


def test_other_columns_do_not_pass_for_ours():
    row = fields(problem="a", pred="the chosen response", level=3, steps=["a"])
    assert row.others("problem") == {"source_pred": "the chosen response", "level": 3, "source_steps": ["a"]}


def test_a_long_value_is_cut_in_messages():
    with pytest.raises(RecordError) as error:
        fields(number=["x" * 1000]).number("number")
    assert len(str(error.value)) < 250


def test_an_id_depends_on_all_that_it_is_made_from():
    turns = ({"role": "user", "content": "?"},)
    assert id_from(turns) == id_from(turns)
    assert len({id_from("a"), id_from("b"), id_from("a", "b"), id_from(turns), id_from("ки")}) == 5
