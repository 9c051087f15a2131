"""Choosing and reading problems."""

import json
from pathlib import Path

import pytest

from freeprm.datasets.base import choose, read_problems, split_files, text_of
from freeprm.errors import ConfigError, RecordError
from freeprm.io.files import write_table
from freeprm.io.rows import Row, Source
from freeprm.types import Problem


def problem(row: Row, source: Source, index: int) -> Problem:
    return Problem(problem_id=text_of(row, "id", source), prompt=f"question {index}", answer="1")


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_choose_without_limit_keeps_all_in_order():
    assert list(choose("abc", limit=None, seed=3)) == list("abc")
    assert list(choose("abc", limit=7, seed=3)) == list("abc")


def test_choose_keeps_order_and_a_larger_limit_keeps_the_smaller_ones_items():
    small, large = list(choose(range(100), limit=10, seed=0)), list(choose(range(100), limit=30, seed=0))
    assert small == sorted(small)
    assert len(small) == 10
    assert set(small) <= set(large)
    assert small != list(choose(range(100), limit=10, seed=1))


def test_read_problems_counts_rows_from_zero(tmp_path: Path):
    found = read_problems([write(tmp_path / "a.jsonl", [{"id": "x"}, {"id": "y"}])], problem)
    assert [(item.problem_id, item.prompt) for item in found] == [("x", "question 0"), ("y", "question 1")]


def test_read_problems_refuses_an_id_twice_and_says_where(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", [{"id": "x"}, {"id": "y"}, {"id": "x"}])
    with pytest.raises(RecordError, match=r"a\.jsonl:3: problem_id: 'x' is already at .*a\.jsonl:1"):
        read_problems([path], problem)


def test_read_problems_refuses_a_torn_line(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x"}\n{"id": ', encoding="utf-8")
    with pytest.raises(RecordError, match=r"a\.jsonl:2: not valid JSON"):
        read_problems([path], problem)


def test_read_problems_leaves_out_broken_rows_where_asked_and_counts_them(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", [{"id": "x"}, {"id": ""}, {"id": "y"}])
    with pytest.warns(UserWarning, match=r"left out 1 of 3 rows; first .*a\.jsonl:2: id: is ''"):
        found = read_problems([path], problem, on_bad="skip")
    assert [item.problem_id for item in found] == ["x", "y"]


@pytest.mark.parametrize("row", [{"id": ""}, {"id": None}, {"id": 3}, {"other": "x"}])
def test_text_of_refuses_what_is_not_text(row: Row):
    with pytest.raises(RecordError, match=r"a\.jsonl:7: id: "):
        text_of(row, "id", Source(Path("a.jsonl"), 7))


def test_a_splits_file_is_the_file_itself_or_the_splits_in_the_folder(tmp_path: Path):
    file = write(tmp_path / "test.jsonl", [])
    assert split_files(file, "train") == [file]
    assert split_files(tmp_path, "test") == [file]
    with pytest.raises(ConfigError, match=r"no train\.jsonl .* has the splits test"):
        split_files(tmp_path, "train")


@pytest.mark.parametrize("place", ["", "data", "main"])
def test_a_split_is_found_in_parts_and_as_hubs_lay_it_out(tmp_path: Path, place: str):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    parts = [folder / f"train-0000{index}-of-00002.parquet" for index in range(2)]
    for number, part in enumerate(parts):
        write_table(part, [{"id": f"x{number}"}])
    write_table(folder / "test-00000-of-00001.parquet", [{"id": "y"}])
    assert split_files(tmp_path, "train") == parts
    assert [item.problem_id for item in read_problems(split_files(tmp_path, "train"), problem)] == ["x0", "x1"]


def test_a_split_that_is_there_twice_is_refused(tmp_path: Path):
    for place in ("main", "socratic"):  # as GSM8K has them
        (tmp_path / place).mkdir()
        write_table(tmp_path / place / "test-00000-of-00001.parquet", [{"id": place}])
    with pytest.raises(ConfigError, match=r"split 'test' is there 2 times: .*main/.*socratic/.*; name the one meant"):
        split_files(tmp_path, "test")
    assert len(split_files(tmp_path / "main", "test")) == 1


def test_a_split_of_a_hubs_data_set_is_asked_of_the_hub():
    assert split_files(Path("hf:openai/gsm8k:main"), "test") == [Path("hf:openai/gsm8k:main#test")]
    assert split_files(Path("hf:openai/gsm8k#train"), "test") == [Path("hf:openai/gsm8k#train")]
