"""Rows to rollouts and back: what is accepted, what is refused and how it is said, and that nothing gets lost."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.errors import ConfigError, RecordError
from freeprm.io.columns import COLUMNS
from freeprm.io.rollouts import problem_row, read_rollouts, rollout_row
from freeprm.io.rows import write_rows
from freeprm.types import Problem, Rollout

ROW: dict[str, Any] = {"problem_id": "p", "sample_idx": 0, "prompt": "2 + 2?", "response": "4"}


def write(path: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path / name


def read(path: Path, *rows: Any, **options: Any) -> list[Rollout]:
    return read_rollouts([write(path, *rows)], **options).rollouts


def without(column: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**ROW, **changes}.items() if key != column}


def test_a_row_becomes_a_rollout(tmp_path: Path):
    row = {
        **ROW, "answer": 4, "pred": "4", "correct": 1, "truncated": True, "scorer": "ce", "step_scores": [1, -0.5],
        "score": 2, "level": 3, "meta": {"a": [1]}, "gone": None,
    }  # fmt: skip
    assert read(tmp_path, row) == [
        Rollout(
            problem_id="p", sample_idx=0, prompt="2 + 2?", response="4", answer="4", pred="4", correct=True,
            truncated=True, scorer="ce", step_scores=(1.0, -0.5), score=2.0,
            extra={"level": 3, "meta": {"a": [1]}, "gone": None},
        )
    ]  # fmt: skip


def test_every_field_of_a_rollout_is_a_column():
    assert [*COLUMNS, "extra"] == list(Rollout.__slots__)


@pytest.mark.parametrize("column", ["problem_id", "prompt", "response"])
def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path: Path, column: str):
    with pytest.raises(RecordError, match=rf"rows\.jsonl:1: {column}: no such column\. The row has "):
        read(tmp_path, without(column))


@pytest.mark.parametrize(
    ("column", "theirs"),
    [("response", "respones"), ("response", "completion"), ("prompt", "question"), ("problem_id", "id")],
)
def test_a_misspelt_or_otherwise_named_column_is_suggested(tmp_path: Path, column: str, theirs: str):
    with pytest.raises(RecordError, match=rf"Did you mean --map {column}={theirs}\?"):
        read(tmp_path, without(column, **{theirs: "x"}))


def test_rollouts_without_any_label_are_told_of_grading_where_labels_are_expected(tmp_path: Path):
    advice = "Rollouts without labels get them by `freeprm grade`"
    with pytest.raises(RecordError, match=rf"correct: no such column, nor has any other row\. .*{advice}"):
        read(tmp_path, ROW, expect=("correct",))
    with pytest.raises(RecordError, match=rf"Did you mean --map correct=is_correct\? {advice}"):
        read(tmp_path, {**ROW, "is_correct": True}, expect=("correct",))
    with pytest.raises(RecordError, match=rf"correct: is null; expected true, false, 1 or 0\. {advice}"):
        read(tmp_path, {**ROW, "correct": None}, require=("response", "correct"))


def test_one_label_is_enough_where_labels_are_expected(tmp_path: Path):
    rows = [{**ROW, "correct": None}, {**ROW, "sample_idx": 1, "correct": False}, {**ROW, "sample_idx": 2}]
    assert [item.correct for item in read(tmp_path, *rows, expect=("correct",))] == [None, False, None]


@pytest.mark.parametrize("label", ["yes", "true", 2, -1, 0.5, [True], {}])
def test_a_label_that_is_neither_boolean_nor_0_or_1_is_refused(tmp_path: Path, label: Any):
    with pytest.raises(RecordError, match=r"rows\.jsonl:2: correct: is .*; expected true, false, 1 or 0"):
        read(tmp_path, ROW, {**ROW, "sample_idx": 1, "correct": label})


@pytest.mark.parametrize(
    ("label", "correct"), [(True, True), (False, False), (1, True), (0, False), (1.0, True), (None, None)]
)
def test_labels_are_read(tmp_path: Path, label: Any, correct: bool | None):
    assert read(tmp_path, {**ROW, "correct": label})[0].correct is correct


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("problem_id", "", "text or a whole number"), ("problem_id", 1.5, "text or a whole number"),
        ("problem_id", True, "text or a whole number"), ("sample_idx", -1, "a whole number from 0"),
        ("sample_idx", "0", "a whole number from 0"), ("prompt", "", "text or a list of"),
        ("prompt", [], "text or a list"), ("prompt", ["hi"], "text or a list"),
        ("prompt", [{"role": "user"}], "text or a list"),
        ("prompt", [{"role": "user", "content": None}], "text or a list"), ("response", 4, "text"),
        ("response", ["4"], "text"), ("answer", ["4"], "text or a number"), ("answer", True, "text or a number"),
        ("scorer", 3, "text"), ("step_scores", {}, "a list of finite numbers, one a step"),
        ("step_scores", [0.5, None], "a list of finite"), ("step_scores", "0.5", "a list of finite"),
        ("score", "0.5", "a finite number"), ("score", True, "a finite number"), ("truncated", "no", "true, false"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_with_what_was_expected(
    tmp_path: Path, column: str, value: Any, expected: str
):
    with pytest.raises(RecordError, match=rf"rows\.jsonl:1: {column}: is .*; expected {expected}"):
        read(tmp_path, {**ROW, column: value})


def test_numbers_that_no_float_holds_are_refused(tmp_path: Path):
    row = json.dumps({**ROW, "score": 0}).replace('"score": 0', f'"score": {10**400}')
    with pytest.raises(RecordError, match=r"score: is 10+\.\.\.; expected a finite number"):
        read(tmp_path, row)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(tmp_path: Path, number: str):
    for column in ("score", "some_other_column"):
        row = json.dumps({**ROW, column: 0}).replace(f'"{column}": 0', f'"{column}": {number}')
        with pytest.raises(RecordError, match=rf"rows\.jsonl:1: {column}: is -?(nan|inf); expected a finite number"):
            read(tmp_path, row)


def test_half_a_character_is_refused_where_it_would_reach_a_tokenizer(tmp_path: Path):
    with pytest.raises(RecordError, match=r"response: holds half of a surrogate pair, '\\ud83d', at character 2"):
        read(tmp_path, {**ROW, "response": "ok\ud83d"})
    assert read(tmp_path, {**ROW, "note": "\ud83d"})[0].extra == {"note": "\ud83d"}


def test_an_empty_response_is_read_as_what_it_is(tmp_path: Path):
    assert read(tmp_path, {**ROW, "response": ""})[0].response == ""


def test_a_conversation_is_a_prompt(tmp_path: Path):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?", "name": "x"}]
    rollout = read(tmp_path, {**ROW, "prompt": messages})[0]
    assert rollout.prompt == tuple(messages)
    assert rollout_row(rollout)["prompt"] == messages


def test_other_names_are_mapped_and_no_longer_carried_along(tmp_path: Path):
    row = {"uid": 7, "question": "2 + 2?", "output": "4", "label": 0, "level": 3}
    columns = {"problem_id": "uid", "prompt": "question", "response": "output", "correct": "label"}
    rollout = read(tmp_path, row, columns=columns)[0]
    assert (rollout.problem_id, rollout.correct, rollout.extra) == ("7", False, {"level": 3})


def test_a_column_that_bears_our_name_for_something_else_is_carried_along_under_another(tmp_path: Path):
    row = {**ROW, "answer": "Two and two are four.", "final": "4", "correct": True, "label": None}
    rollout = read(tmp_path, row, columns={"answer": "final", "correct": "label"})[0]
    assert (rollout.answer, rollout.correct) == ("4", None)
    assert rollout.extra == {"source_answer": "Two and two are four.", "source_correct": True}
    assert "correct" not in rollout_row(rollout)


def test_columns_that_are_only_carried_along_can_be_mapped_too(tmp_path: Path):
    row = {**ROW, "mistake_index": 2, "first_error": "?"}
    rollout = read(tmp_path, row, columns={"first_error": "mistake_index"})[0]
    assert rollout.extra == {"first_error": 2, "source_first_error": "?"}
    with pytest.raises(RecordError, match="mistake_idx: no such column, asked for by --map first_error=mistake_idx"):
        read(tmp_path, row, columns={"first_error": "mistake_idx"})


def test_two_columns_may_change_names(tmp_path: Path):
    row = {**ROW, "answer": "seen in the response", "pred": "gold"}
    rollout = read(tmp_path, row, columns={"answer": "pred", "pred": "answer"})[0]
    assert (rollout.answer, rollout.pred, rollout.extra) == ("gold", "seen in the response", {})


def test_problems_without_ids_can_be_told_apart_by_their_prompts(tmp_path: Path):
    rows = [without("problem_id", prompt=prompt, sample_idx=index) for index, prompt in enumerate(["a?", "b?", "a?"])]
    with pytest.raises(RecordError, match="Where the prompt tells problems apart: --map problem_id=prompt"):
        read(tmp_path, *rows)
    found = read(tmp_path, *rows, columns={"problem_id": "prompt"})
    assert [(item.problem_id, item.prompt) for item in found] == [("a?", "a?"), ("b?", "b?"), ("a?", "a?")]


def test_the_advice_for_problems_without_ids_holds_under_another_name_and_for_conversations(tmp_path: Path):
    turns = [{"role": "user", "content": "a?"}]
    rows = [{"question": prompt, "response": "4"} for prompt in ("a?", "b?", turns, turns)]
    found = read(tmp_path, *rows, columns={"prompt": "question", "problem_id": "prompt"})
    assert [item.problem_id for item in found] == ["a?", "b?", *['[{"role": "user", "content": "a?"}]'] * 2]
    assert found == read(tmp_path, *rows, columns={"prompt": "question", "problem_id": "question"})
    assert [item.extra for item in found] == [{}] * 4


def test_a_map_goes_along_a_path_into_tables_and_lists(tmp_path: Path):
    output = {"text": "4", "steps": [{"p": 0.5, "t": "a"}, {"p": 0.9, "t": "b"}], "labels": [True]}
    row = {"id": 7, "task": {"q": "2 + 2?"}, "output": output, "a.b": "5"}
    paths = {
        "problem_id": "id", "prompt": "task.q", "response": "output.text", "step_scores": "output.steps[].p",
        "steps": "output.steps[].t", "correct": "output.labels[0]", "answer": "a.b",
    }  # fmt: skip
    (found,) = read(tmp_path, row, columns=paths)
    assert (found.prompt, found.response, found.step_scores, found.correct) == ("2 + 2?", "4", (0.5, 0.9), True)
    assert found.answer == "5"
    assert found.extra == {"steps": ["a", "b"], "task": row["task"], "output": output}
    for absent in ("output.stepz[].p", "output.text[0]", "output.labels[1]", "output.steps[].q", "output.text.x"):
        with pytest.raises(RecordError, match="no such column, asked for by --map step_scores="):
            read(tmp_path, row, columns={**paths, "step_scores": absent})


def test_two_names_for_one_column_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="--map correct=label and --map score=label: one column cannot be both"):
        read(tmp_path, {**ROW, "label": 1}, columns={"correct": "label", "score": "label"})


def test_a_map_to_an_absent_column_is_refused_by_what_was_asked_for(tmp_path: Path):
    message = r"labl: no such column, asked for by --map correct=labl\. .*Did you mean --map correct=label\?"
    with pytest.raises(RecordError, match=message):
        read(tmp_path, {**ROW, "label": 1}, columns={"correct": "labl"})


def test_a_map_of_a_column_that_is_not_ours_is_refused_with_a_suggestion(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"--map corect=\.\.\.: no such column of ours\. Did you mean 'correct'\?"):
        read(tmp_path, ROW, columns={"corect": "label"})


def test_a_sample_given_twice_is_refused_with_both_places(tmp_path: Path):
    with pytest.raises(RecordError, match=r"rows\.jsonl:2: sample_idx: 0 of problem 'p' is already at .*rows\.jsonl:1"):
        read(tmp_path, ROW, ROW)
    one, two = write(tmp_path, ROW, name="one.jsonl"), write(tmp_path, ROW, name="two.jsonl")
    with pytest.raises(RecordError, match=r"two\.jsonl:1: .* already at .*one\.jsonl:1"):
        read_rollouts([one, two])


def test_several_scorers_may_have_scored_one_sample_each_once(tmp_path: Path):
    rows = [{**ROW, "scorer": name, "score": value} for name, value in (("a", 1), ("b", 2), (None, 0))]
    assert [item.scorer for item in read(tmp_path, *rows)] == ["a", "b", None]
    with pytest.raises(RecordError, match="0 of problem 'p' by scorer 'a' is already at"):
        read(tmp_path, *rows, rows[0])


def test_samples_without_a_number_are_numbered_by_problem_and_scorer(tmp_path: Path):
    rows = [
        without("sample_idx", problem_id=problem, scorer=scorer)
        for problem, scorer in [("p", "a"), ("q", "a"), ("p", "a"), ("p", "b"), ("q", "a"), ("p", "b")]
    ]
    assert [item.sample_idx for item in read(tmp_path, *rows)] == [0, 0, 1, 0, 1, 1]
    parts = [write(tmp_path, *rows[:3], name="1.jsonl"), write(tmp_path, *rows[3:], name="2.jsonl")]
    assert [item.sample_idx for item in read_rollouts(parts).rollouts] == [0, 0, 1, 0, 1, 1]


def test_one_id_for_two_problems_is_refused(tmp_path: Path):
    other = {**ROW, "sample_idx": 1, "prompt": "3 + 3?"}
    with pytest.raises(RecordError, match=r"rows\.jsonl:2: prompt: is another prompt than .*:1 has for problem 'p'"):
        read(tmp_path, ROW, other)


def test_broken_records_stop_the_reading_or_are_counted_equal_mistakes_together(tmp_path: Path):
    rows = [
        ROW, {**ROW, "sample_idx": 1, "correct": "yes"}, {**ROW, "sample_idx": 2, "correct": 2}, '{"cut', ROW,
        "[1]", {**ROW, "sample_idx": 3, "score": float("nan")}, without("response"), {**ROW, "response": None},
        {**ROW, "sample_idx": 4}, '{"cut again"', {**ROW, "sample_idx": 5, "prompt": "another?"},
    ]  # fmt: skip
    with pytest.raises(RecordError, match=r"rows\.jsonl:2: correct: is 'yes'"):
        read(tmp_path, *rows)
    kept, skipped, *_ = read_rollouts([write(tmp_path, *rows)], on_bad="skip")
    assert [item.sample_idx for item in kept] == [0, 4]
    assert skipped == Counter({
        "correct is not true, false, 1 or 0": 2, "not valid JSON": 2, "a sample that is there already": 1,
        "not a JSON object": 1, "score is not a finite number": 1, "no column response": 1, "response is null": 1,
        "another prompt under the same problem_id": 1,
    })  # fmt: skip


def test_nothing_to_read_is_refused_and_says_what_was_skipped(tmp_path: Path):
    with pytest.raises(RecordError, match=r"rows\.jsonl: no usable record \(there is none at all\)"):
        read_rollouts([write(tmp_path)])
    with pytest.raises(
        RecordError, match=r"no usable record \(2 skipped: not valid JSON; 1 skipped: no column response"
    ):
        read_rollouts([write(tmp_path, "{", without("response"), "}")], on_bad="skip")


def test_a_row_that_was_written_by_us_is_the_same_when_read_and_written_again(tmp_path: Path):
    row = {
        **ROW, "correct": False, "scorer": "ce", "step_scores": [0.25, -1e-30], "first_error": None,
        "step_spans": [[0, 3]], "nested": {"b": [1, None]},
    }  # fmt: skip
    (rollout,) = read(tmp_path, row)
    assert rollout_row(rollout) == row
    write_rows(tmp_path / "again.jsonl", [rollout_row(rollout)])
    assert read_rollouts([tmp_path / "again.jsonl"]).rollouts == [rollout]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
rollouts = st.builds(
    Rollout,
    problem_id=texts.filter(bool),
    sample_idx=st.integers(0, 9),
    prompt=texts.filter(bool)
    | st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), min_size=1, max_size=3).map(tuple),
    response=texts,
    answer=st.none() | texts,
    pred=st.none() | texts,
    correct=st.none() | st.booleans(),
    truncated=st.booleans(),
    scorer=st.none() | texts,
    step_scores=st.none()
    | st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4).map(tuple),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    extra=st.dictionaries(st.text().filter(lambda name: name not in COLUMNS), json_values, max_size=3),
)


@settings(max_examples=50, deadline=None)
@given(rollouts)
def test_rollouts_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, rollout: Rollout):
    assert read(tmp_path_factory.getbasetemp(), rollout_row(rollout)) == [rollout]


def test_a_problem_becomes_a_row():
    problem = Problem(problem_id="p", prompt=({"role": "user", "content": "2 + 2?"},), answer="4", extra={"level": 3})
    assert problem_row(problem) == {
        "problem_id": "p", "prompt": [{"role": "user", "content": "2 + 2?"}], "answer": "4", "level": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "n", "right", "extra"),
    [
        ("gsm8k/rollouts_example_model_solutions.jsonl", 5276, None, {"model"}),
        ("qwen3_dapo_pointwise/rollouts.jsonl", 1086, 543, set()),
        ("qwen_rm_maj_100x8/rollouts.jsonl", 800, None, {"system", "rm_score", "level"}),
        ("search_and_learn_bon/scatyf3_llama3b_10x4.rollouts.jsonl", 40, None, {"agg_score", "subject", "level"}),
    ],
)
def test_real_rollouts_are_read_as_they_are(real_data: Path, file: str, n: int, right: int | None, extra: set[str]):
    found = read_rollouts([real_data / file])
    assert (len(found.rollouts), found.skipped) == (n, Counter())
    assert set(found.rollouts[0].extra) == extra
    if right is not None:  # half of the responses, says the set's own description
        assert sum(item.correct is True for item in found.rollouts) == right


def test_real_scores_under_another_name_are_mapped(real_data: Path):
    file = real_data / "qwen_rm_maj_100x8" / "rollouts.jsonl"
    first = read_rollouts([file], columns={"score": "rm_score"}).rollouts[0]
    assert first.score == 3.546875
    assert "rm_score" not in first.extra


def test_steps_may_be_given_by_their_characters(tmp_path: Path):
    row = {**ROW, "response": "ab\n\ncd e\n", "steps": [[0, 2], [4, 9]]}
    assert read(tmp_path, row)[0].extra["steps"] == ["ab", "cd e\n"]
    assert read(tmp_path, {**row, "steps": ["ab", "cd e"]})[0].extra["steps"] == ["ab", "cd e"]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([[0, 2], [4, 5]], r"the response ends at 9; 'd e' before it is in no step"),
        ([[0, 5], [4, 9]], r"step 1 is \[4, 9\]; expected it from character 5 on"),
        ([[0, 2], [4, 10]], r"step 1 is \[4, 10\]; .* within the response's 9"),
        ([[0, 2, 3]], r"step 0 is \[0, 2, 3\]; expected \[first character"),
        ([[0, 2.0], [4, 9]], r"step 0 is \[0, 2.0\]; expected \[first character"),
        ([[1, 9]], r"step 0 is \[1, 9\]; 'a' before it is in no step"),
    ],
)
def test_characters_that_are_no_steps_of_the_response_are_refused(tmp_path: Path, steps: Any, told: str):
    with pytest.raises(RecordError, match=told):
        read(tmp_path, {**ROW, "response": "ab\n\ncd e\n", "steps": steps})
