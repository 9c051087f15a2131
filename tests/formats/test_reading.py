"""Files of any format: which one it is, samples numbered on, broken rows named or counted."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError, PluginError, RecordError
from freeprm.formats._reading import read_records, recognise
from freeprm.io.files import write_table
from freeprm.io.rows import write_rows

ENTRY = {
    "id": "x-0", "generator": "g", "problem": "2 + 2?", "steps": ["2 + 2 = 5."], "final_answer_correct": False,
    "label": 0,
}  # fmt: skip


def problem(prompt: str, *completions: str) -> dict[str, Any]:
    return {"prompt": prompt, "completions": list(completions), "correctness": [True] * len(completions)}


def write(folder: Path, *rows: Any, name: str = "a.jsonl") -> Path:
    write_rows(folder / name, rows)
    return folder / name


def test_each_input_is_read_as_what_its_first_row_looks_like(tmp_path: Path):
    first = write(tmp_path, ENTRY, name="a.jsonl")
    second = write(tmp_path, problem("1 + 1?", "2", "two"), name="b.jsonl")
    read = read_records([first, second])
    assert read.formats == {first: "processbench", second: "ultrainteract_rollout"}
    assert (len(read.rollouts), read.n_rows, read.skipped) == (3, 2, Counter())


def test_samples_of_a_problem_are_numbered_on_over_rows_and_files(tmp_path: Path):
    first = write(tmp_path, problem("1 + 1?", "a", "b"), problem("3?", "c"), problem("1 + 1?", "d"), name="a.jsonl")
    second = write(tmp_path, problem("1 + 1?", "e"), name="b.jsonl")
    rollouts = read_records([first, second]).rollouts
    assert [(item.prompt, item.sample_idx, item.response) for item in rollouts] == [
        ("1 + 1?", 0, "a"), ("1 + 1?", 1, "b"), ("3?", 0, "c"), ("1 + 1?", 2, "d"), ("1 + 1?", 3, "e"),
    ]  # fmt: skip


def test_a_sample_that_several_scorers_scored_keeps_its_number(tmp_path: Path):
    rows = [{**ENTRY, "scorer": scorer, "step_scores": [0.5]} for scorer in ("a", "b")]
    rollouts = read_records([write(tmp_path, *rows)]).rollouts
    assert [(item.scorer, item.sample_idx) for item in rollouts] == [("a", 0), ("b", 0)]


def test_another_prompt_under_one_id_is_refused_with_both_places(tmp_path: Path):
    path = write(tmp_path, ENTRY, {**ENTRY, "problem": "3 + 3?"})
    with pytest.raises(RecordError, match=rf"{path}:2: is another prompt than {path}:1 has for problem 'x-0'"):
        read_records([path])


def test_rows_that_no_format_recognises_are_refused_with_what_they_have_and_what_there_is(tmp_path: Path):
    path = write(tmp_path, {"frage": "2 + 2?", "antwort": "4"})
    with pytest.raises(
        DataError, match=rf"{path}:1: no format recognises this row, which has frage, antwort\. There are"
    ):
        read_records([path])


def test_a_row_is_recognised_by_one_format_at_most():
    assert recognise(ENTRY) == ["processbench"]
    assert recognise({"x": 1}) == []


def test_the_formats_columns_are_mapped_and_others_of_their_names_are_carried_along(tmp_path: Path):
    row = {"question": "2 + 2?", **{name: value for name, value in ENTRY.items() if name != "problem"}}
    mapped = read_records([write(tmp_path, row)], columns={"problem": "question"})
    assert mapped.rollouts[0].prompt == "2 + 2?"
    both = read_records([write(tmp_path, {**row, "problem": "other"})], columns={"problem": "question"})
    assert both.rollouts[0].prompt == "2 + 2?"
    assert both.rollouts[0].extra["source_problem"] == "other"


def test_a_broken_row_stops_the_reading_or_is_counted_by_what_is_wrong(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    write_rows(path, [ENTRY, {**ENTRY, "label": 7}, {**ENTRY, "id": "y", "label": 8}])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": ')
    with pytest.raises(RecordError, match=rf"{path}:2: label: is 7; expected -1 for no error"):
        read_records([path])
    read = read_records([path], on_bad="skip")
    assert (len(read.rollouts), read.n_rows) == (1, 4)
    assert read.skipped == {
        "label is not -1 for no error, or the index of one of the n steps": 2, "not valid JSON": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str):
    write_table(tmp_path / name, [])
    with pytest.raises(RecordError, match="no usable record; expected rows in one of"):
        read_records([tmp_path / name])
    with pytest.raises(RecordError, match=r"no usable record \(there is none at all\)"):
        read_records([tmp_path / name], format="processbench")


def test_an_unknown_format_and_an_unknown_option_are_refused_with_what_there_is(tmp_path: Path):
    path = write(tmp_path, ENTRY)
    with pytest.raises(PluginError, match=r"formats: no 'procesbench'\. Did you mean 'processbench'\?"):
        read_records([path], format="procesbench")
    with pytest.raises(ConfigError, match="colour: no such setting"):
        read_records([path], format="processbench", options={"colour": "red"})
