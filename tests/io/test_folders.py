"""Which files of a folder are its rows, and which folders do not say it."""

from pathlib import Path

import pytest

from datasets import Dataset, DatasetDict
from freeprm.errors import RecordError
from freeprm.io.folders import row_files, suffix_of
from freeprm.io.identity import content_hash
from freeprm.io.jsonl import read_rows, write_json, write_rows, write_table


def read(path: Path) -> list[object]:
    return [row for _, row in read_rows(path)]


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
