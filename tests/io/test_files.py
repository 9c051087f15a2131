"""Rows of files and folders by their ending: what is read, what is refused, and how both are said; tables written."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from datasets import Dataset, DatasetDict
from freeprm.errors import ConfigError, NonFiniteError, RecordError
from freeprm.io.files import content_hash, read_rows, row_files, suffix_of, write_table
from freeprm.io.rows import append_rows, write_json, write_rows


def read(path: Path) -> list[dict | RecordError]:
    return [row for _, row in read_rows(path)]


def only_error(path: Path) -> RecordError:
    (found,) = [row for row in read(path) if isinstance(row, RecordError)]
    return found


def test_rows_come_with_where_they_stood_and_blank_lines_are_passed_over(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"x": 1}\n\n  \n{"x": 2}', encoding="utf-8")  # the last line needs no end
    assert [(str(source), row) for source, row in read_rows(file)] == [(f"{file}:1", {"x": 1}), (f"{file}:4", {"x": 2})]


def test_a_json_file_is_one_list_of_rows(tmp_path: Path):
    file = tmp_path / "a.json"
    file.write_text('[{"x": 1}, 2, {"x": NaN}]', encoding="utf-8")
    good, number, nan = read(file)
    assert good == {"x": 1}
    assert str(number) == f"{file}:2: expected a JSON object, got 2"
    assert str(nan) == f"{file}:3: x: is nan; expected a finite number, or null where there is none"


def test_a_folder_gives_the_rows_of_all_its_jsonl_files_in_order(tmp_path: Path):
    for name, value in (("b", 2), ("a", 1)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"x": value}), encoding="utf-8")
    (tmp_path / "metrics.json").write_text("[]", encoding="utf-8")
    assert read(tmp_path) == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("line", "message", "reason"),
    [
        (b'{"x": 1', "not valid JSON", "not valid JSON"),
        (b"[1, 2]", r"expected a JSON object, got \[1, 2\]. A file that is one list of rows is named .json", None),
        (b"null", "expected a JSON object, got null", "not a JSON object"),
        (b'{"x": NaN}', "x: is nan; expected a finite number", "x is not a finite number"),
        (b'{"x": {"y": [0.5, -Infinity]}}', "x.y.1: is -inf", "x.y.1 is not a finite number"),
        (b'{"x": 1e999}', "x: is inf", "x is not a finite number"),
        (b'{"x": "caf\xe9"}', "not UTF-8 text .*byte 10 of the line", "not UTF-8 text"),
        (b'{"x": ' + b"[" * 100_000, "not valid JSON", "not valid JSON"),
    ],
    ids=["torn", "list", "null", "NaN", "nested infinity", "overflow", "latin-1", "bottomless"],
)
def test_a_broken_line_is_an_error_in_its_place_and_the_others_stand(
    tmp_path: Path, line: bytes, message: str, reason: str | None
):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    before, error, after = read(file)
    assert (before, after) == ({"a": 1}, {"b": 2})
    assert isinstance(error, RecordError)
    assert str(error).startswith(f"{file}:2: ")
    with pytest.raises(RecordError, match=message):
        raise error
    assert error.reason == (reason or "not a JSON object")


@pytest.mark.parametrize("cut", [5, 12], ids=["inside the object", "inside a character"])
def test_a_record_cut_at_the_end_of_the_file_is_said_to_be_torn(tmp_path: Path, cut: int):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + '{"text": "é"}'.encode()[: cut - 1])
    assert str(only_error(file)).endswith("The line has no end: the file was probably cut while it was written.")


def test_a_record_cut_in_the_middle_of_the_file_breaks_one_line_only(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"b": 2, "c{"d": 3}\n{"e": 4}\n')
    assert "probably cut" not in str(only_error(file))
    assert [row for row in read(file) if isinstance(row, dict)] == [{"a": 1}, {"e": 4}]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path):
    for name, text in (("a.jsonl", '{"x": 1}\n'), ("b.json", '[{"x": 1}]')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read(tmp_path / name) == [{"x": 1}]


def test_line_breaks_of_other_alphabets_do_not_end_a_line(tmp_path: Path):
    write_rows(tmp_path / "a.jsonl", [{"x": "a\u2028b\x85c\rd\n"}])
    assert read(tmp_path / "a.jsonl") == [{"x": "a\u2028b\x85c\rd\n"}]


def test_an_empty_file_has_no_rows(tmp_path: Path):
    (tmp_path / "a.jsonl").touch()
    assert read(tmp_path / "a.jsonl") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.jsonl", None, "no such file or folder"),
        ("empty.json", "", "not valid JSON"),
        ("lines.json", '{"x": 1}\n{"x": 2}', "one object a line is named .jsonl"),
        ("object.json", '{"x": 1}', "expected a JSON list of objects, got one dict"),
    ],
)
def test_a_file_of_no_rows_at_all_is_refused(tmp_path: Path, name: str, content: str | None, message: str):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        read(tmp_path / name)


def test_a_folder_without_rows_is_refused_and_a_models_folder_by_name(tmp_path: Path):
    with pytest.raises(RecordError, match=r"a folder without \.jsonl files"):
        read(tmp_path)
    write_json(tmp_path / "manifest.json", {"stage": "train", "status": "complete"})
    with pytest.raises(RecordError, match=r"the folder of a `freeprm train` without .*: freeprm score ROLLOUTS --prm"):
        read(tmp_path)


def test_an_unfinished_runs_folder_is_refused_but_its_files_are_not(tmp_path: Path):
    write_rows(tmp_path / "rollouts.jsonl", [{"x": 1}])
    write_json(tmp_path / "manifest.json", {"stage": "sample", "status": "running"})
    with pytest.raises(RecordError, match="`freeprm sample` that has not finished; give its command again"):
        read(tmp_path)
    assert read(tmp_path / "rollouts.jsonl") == [{"x": 1}]


@pytest.mark.parametrize("manifest", ["[1]", "{}", "not JSON"])
def test_another_programs_manifest_does_not_matter(tmp_path: Path, manifest: str):
    (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
    write_rows(tmp_path / "a.jsonl", [{"x": 1}])
    assert read(tmp_path) == [{"x": 1}]


def test_what_is_written_is_read_back(tmp_path: Path):
    rows = [{"x": "é\n\"'\\ \u2028", "y": [1, 0.1, None, True, {"z": []}]}, {"half": "\ud83d"}]
    write_rows(tmp_path / "a.jsonl", rows[:1])
    append_rows(tmp_path / "a.jsonl", rows[1:])
    assert read(tmp_path / "a.jsonl") == rows
    assert "é" in (tmp_path / "a.jsonl").read_text(encoding="utf-8")


def test_rows_with_a_number_that_json_cannot_hold_are_refused_and_none_of_them_is_written(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    rows = [{"x": 1.0}, {"step_scores": [0.5, float("nan")]}]
    with pytest.raises(NonFiniteError, match=r"a\.jsonl, row 2: step_scores.1: is nan"):
        append_rows(file, rows)
    assert not file.exists()
    write_rows(file, [{"old": 1}])
    with pytest.raises(NonFiniteError, match="row 2"):
        write_rows(file, rows)
    assert read(file) == [{"old": 1}]
    with pytest.raises(NonFiniteError, match=r"a\.json: beta: is inf"):
        write_json(tmp_path / "a.json", {"beta": float("inf")})


def test_packed_rows_are_read_and_a_torn_pack_is_refused(tmp_path: Path):
    packed = gzip.compress(b'\xef\xbb\xbf{"x": 1}\r\n{"x": \n{"x": 2}\r\n')
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    first, error, last = read(tmp_path / "a.jsonl.gz")
    assert (first, last) == ({"x": 1}, {"x": 2})
    assert str(error).startswith(f"{tmp_path / 'a.jsonl.gz'}:2: not valid JSON")
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-12])
    with pytest.raises(RecordError, match=r"a\.jsonl\.gz: not a whole gzip file"):
        read(tmp_path / "a.jsonl.gz")
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"x": 1}\n')
    with pytest.raises(RecordError, match=r"a\.jsonl\.gz: not a whole gzip file"):
        read(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_table_is_written_as_its_ending_says_and_read_back(tmp_path: Path, name: str):
    rows = [
        {"response": "7", "correct": True, "steps": ["a,\n", '"é"'], "x": 0.5},
        {"response": "b\r\nc", "correct": None, "steps": [], "x": None},
    ]
    write_table(tmp_path / name, rows)
    assert read(tmp_path / name) == rows
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_table_of_another_ending_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"a\.txt: cannot write \.txt; expected \.jsonl, \.json, \.csv, \.parquet"):
        write_table(tmp_path / "a.txt", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_large_file_is_not_held_in_memory(tmp_path: Path, name: str):
    write_table(tmp_path / name, [{"response": f"{number} " + "x" * 2000} for number in range(10_000)])  # 20 MB
    tracemalloc.start()
    assert sum(1 for _ in read_rows(tmp_path / name)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000  # a batch of 1,024 rows is 2 MB, and what it is made of as much again


def test_the_ending_of_a_packed_file_is_that_of_what_it_holds():
    assert [suffix_of(Path(name)) for name in ("a.b.jsonl.gz", "a.CSV", "a.b.parquet", "a")] == [
        ".jsonl.gz", ".csv", ".parquet", "",
    ]  # fmt: skip


def test_a_saved_data_set_is_read_in_its_parts_order(tmp_path: Path):
    rows = [{"x": number, "steps": [{"a": "b"}]} for number in range(10)]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    assert len(row_files(tmp_path / "saved")) == 3
    assert read(tmp_path / "saved") == rows


def test_a_saved_data_set_of_several_splits_wants_one_named(tmp_path: Path):
    rows = [{"x": 1}]
    both = DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows)})
    both.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(RecordError, match=r"holds rows in 2 splits, .*test, .*train; expected one table"):
        read(tmp_path / "saved")
    assert read(tmp_path / "saved" / "train") == rows


def test_a_copy_of_a_hubs_repository_is_read_where_its_one_table_lies(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").touch()
    for index in range(2):
        write_table(tmp_path / "data" / f"train-0000{index}-of-00002.parquet", [{"x": index}])
    assert read(tmp_path) == [{"x": 0}, {"x": 1}]


def test_several_splits_or_folders_are_not_mixed(tmp_path: Path):
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}-00000-of-00001.parquet", [{"x": 1}])
    with pytest.raises(
        RecordError, match=rf"holds the splits test, train; say which is meant, e\.g\. hf:{tmp_path}#test"
    ):
        read(tmp_path)
    for place in ("main", "socratic"):
        (tmp_path / "other" / place).mkdir(parents=True)
        write_table(tmp_path / "other" / place / "test-00000-of-00001.parquet", [{"x": 1}])
    with pytest.raises(RecordError, match=r"holds rows in 2 folders, .*main, .*socratic"):
        read(tmp_path / "other")


def test_rows_in_two_containers_are_not_read_twice(tmp_path: Path):
    write_rows(tmp_path / "a.jsonl", [{"x": 1}])
    write_table(tmp_path / "a.parquet", [{"x": 1}])
    with pytest.raises(RecordError, match=r"files of several kinds, \.jsonl, \.parquet; name the files"):
        read(tmp_path)


def test_of_a_run_folder_only_its_own_rows_are_read(tmp_path: Path):
    write_rows(tmp_path / "rollouts.jsonl", [{"x": 1}])
    write_json(tmp_path / "manifest.json", {"stage": "sample", "status": "complete"})
    write_table(tmp_path / "mine.csv", [{"x": 2}])
    assert read(tmp_path) == [{"x": 1}]


def test_a_folders_hash_tells_the_contents_of_its_row_files(tmp_path: Path):
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data" / "a.parquet", [{"x": 1}])
    before = content_hash(tmp_path)
    (tmp_path / "README.md").write_text("changed", encoding="utf-8")
    assert content_hash(tmp_path) == before
    write_table(tmp_path / "data" / "a.parquet", [{"x": 2}])
    assert content_hash(tmp_path) != before
