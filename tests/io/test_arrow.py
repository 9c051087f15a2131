"""Parquet, Arrow and data sets of a hub: what types become, what is refused, and one batch in memory at a time."""

import datetime
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datasets
from freeprm.errors import DataError, MissingExtraError, NonFiniteError, RecordError
from freeprm.io.arrow import (
    BATCH,
    HubName,
    is_hub_name,
    parse_hub_name,
    read_arrow,
    read_parquet,
    with_split,
    write_parquet,
)
from freeprm.io.files import content_hash, read_rows, write_table
from freeprm.io.rollouts import read_rollouts


def saved(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def rows(path: Path) -> list[Any]:
    return [row for _, row in read_parquet(path)]


def test_nested_columns_come_as_lists_and_tables(tmp_path: Path):
    row = {
        "prompt": [{"role": "user", "content": "2 + 2?"}],
        "steps": [["a", "b"], []],
        "correct": [True, False],
        "n": 3,
    }
    path = saved(tmp_path, **{name: [value, None] for name, value in row.items()})
    first, second = read_parquet(path)
    assert first[1] == row
    assert second[1] == dict.fromkeys(row)
    assert (str(first[0]), str(second[0])) == (f"{path}:1", f"{path}:2")


def test_rows_are_counted_on_through_batches_and_row_groups(tmp_path: Path):
    n = 2 * BATCH + 7
    pq.write_table(pa.table({"x": list(range(n))}), tmp_path / "a.parquet", row_group_size=100)
    read = list(read_parquet(tmp_path / "a.parquet"))
    assert [row["x"] for _, row in read] == list(range(n))  # type: ignore[index]  # no error among them
    assert [source.line for source, _ in read] == list(range(1, n + 1))


def test_nan_in_a_column_is_null_and_inside_a_list_an_error_in_its_place(tmp_path: Path):
    path = saved(tmp_path, x=[1.0, float("nan"), 2.0], y=[[0.5], [0.5], [float("nan")]])
    first, second, third = rows(path)
    assert (first, second) == ({"x": 1.0, "y": [0.5]}, {"x": None, "y": [0.5]})
    assert f"{path}:3: y.0: is nan; expected a finite number" in str(third)


def test_whole_numbers_that_pandas_made_floats_of_are_the_ids_they_were(tmp_path: Path):
    # pandas holds 7 beside a gap as 7.0
    path = saved(
        tmp_path,
        problem_id=[7.0, 7.0, float("nan")],
        sample_idx=[0.0, 1.0, 0.0],
        prompt=["a"] * 3,
        response=["b"] * 3,
    )
    read = read_rollouts([path], on_bad="skip")
    assert [(item.problem_id, item.sample_idx) for item in read.rollouts] == [("7", 0), ("7", 1)]
    assert read.skipped == {"problem_id is null": 1}


def test_what_json_does_not_know_becomes_text_or_a_number_or_is_refused_by_column(tmp_path: Path):
    when = datetime.datetime(2026, 1, 2, 3, 4, 5)
    (good,) = rows(saved(tmp_path, when=[when], day=[when.date()], n=[Decimal("7")], x=[Decimal("0.5")]))
    assert good == {"when": "2026-01-02T03:04:05", "day": "2026-01-02", "n": 7, "x": 0.5}
    (bad,) = rows(saved(tmp_path, image=[b"\x00"]))
    assert "a.parquet:1: image: holds bytes; expected text" in str(bad)


def test_a_table_without_rows_has_none(tmp_path: Path):
    assert rows(saved(tmp_path, x=pa.array([], pa.string()))) == []
    write_parquet(tmp_path / "b.parquet", [])
    assert rows(tmp_path / "b.parquet") == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"x": 1}\n'])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(RecordError, match=r"a\.parquet: not a readable Parquet file \("):
        rows(tmp_path / "a.parquet")
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(RecordError, match=r"a\.arrow: not a readable Arrow stream \("):
        list(read_arrow(tmp_path / "a.arrow"))


def test_two_columns_of_one_name_are_refused(tmp_path: Path):
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), tmp_path / "a.parquet")
    with pytest.raises(RecordError, match=r"a\.parquet: x: is there twice"):
        rows(tmp_path / "a.parquet")


def test_what_is_written_is_read_back_with_null_for_what_a_row_lacks(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write_parquet(path, [{"a": 1, "steps": ["x", "é\n"]}, {"b": {"c": [True, None]}, "a": None}])
    assert rows(path) == [
        {"a": 1, "steps": ["x", "é\n"], "b": None},
        {"a": None, "steps": None, "b": {"c": [True, None]}},
    ]


def test_tables_without_a_field_are_null(tmp_path: Path):
    rows = [{"extra_info": {}, "deep": [{"a": {}}], "some": {}}, {"extra_info": {}, "deep": [], "some": {"b": 1}}]
    write_parquet(tmp_path / "t.parquet", rows)
    assert [row for _, row in read_parquet(tmp_path / "t.parquet")] == [
        {"extra_info": None, "deep": [{"a": None}], "some": {"b": None}},
        {"extra_info": None, "deep": [], "some": {"b": 1}},
    ]


def test_a_column_of_mixed_types_is_refused_by_name_and_nothing_is_written(tmp_path: Path):
    with pytest.raises(DataError, match=r"a\.parquet: answer: its values have no type of Parquet in common"):
        write_parquet(tmp_path / "a.parquet", [{"answer": "4"}, {"answer": 4}])
    with pytest.raises(NonFiniteError, match=r"a\.parquet, row 1: x: is inf"):
        write_parquet(tmp_path / "a.parquet", [{"x": float("inf")}])
    assert list(tmp_path.iterdir()) == []


def test_the_published_step_ratings_are_read_with_null_where_there_is_none(real_data: Path):
    path = real_data / "prm800k_phase1" / "train_step_candidates.parquet"
    ratings = [row["rating"] for row in rows(path)]
    assert len(ratings) == 51835  # the set's own count
    assert set(ratings) == {-1.0, 0.0, 1.0, None}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local copy of a hub's repository with two splits."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "owner" / "name"
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 3), ("test", 2)):
        rows = [{"question": f"{split} {number}?", "steps": ["a"]} for number in range(count)]
        write_table(folder / "data" / f"{split}-00000-of-00001.parquet", rows)
    return folder


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:owner/name", HubName("owner/name", None, None, None)),
        ("hf:owner/name:main", HubName("owner/name", "main", None, None)),
        ("hf:owner/name@refs/convert/parquet", HubName("owner/name", None, "refs/convert/parquet", None)),
        ("hf:owner/name:main@v1.0#test", HubName("owner/name", "main", "v1.0", "test")),
        ("hf:/a/folder#train[:5]", HubName("/a/folder", None, None, "train[:5]")),
    ],
)
def test_a_name_is_read_in_its_parts(name: str, parts: HubName):
    assert is_hub_name(Path(name))
    assert parse_hub_name(Path(name)) == parts


@pytest.mark.parametrize("name", ["hf:", "hf:a:b:c", "hf:a@", "hf:a#"])
def test_another_form_is_refused(name: str):
    with pytest.raises(RecordError, match="expected hf:owner/name"):
        list(read_rows(Path(name)))


def test_a_file_is_no_name_of_a_data_set(tmp_path: Path):
    assert not is_hub_name(tmp_path / "hf:x")


def test_a_split_of_a_data_set_is_read_row_by_row(copy: Path):
    path = with_split(Path(f"hf:{copy}"), "test")
    read = list(read_rows(path))
    assert [row for _, row in read] == [{"question": f"test {n}?", "steps": ["a"]} for n in range(2)]
    assert [str(source) for source, _ in read] == [f"{path}:1", f"{path}:2"]


def test_several_splits_want_one_named(copy: Path):
    with pytest.raises(RecordError, match=r"has the splits train, test; say which, e\.g\. hf:.*#train"):
        list(read_rows(Path(f"hf:{copy}")))
    with pytest.raises(RecordError, match=r"cannot be loaded \(Unknown split \"dev\""):
        list(read_rows(Path(f"hf:{copy}#dev")))


def test_its_hash_is_its_fingerprint(copy: Path):
    train, test = Path(f"hf:{copy}#train"), Path(f"hf:{copy}#test")
    assert content_hash(train) == content_hash(train) != content_hash(test)


def test_a_hub_that_cannot_be_reached_is_said_to_be_so_with_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(RecordError, match=r"hf:openai/gsm8k:main#test: the hub cannot be reached .*or a local copy"):
        list(read_rows(Path("hf:openai/gsm8k:main#test")))


def test_without_pyarrow_the_extra_that_brings_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(tmp_path, a=[1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (lambda: rows(path), lambda: list(read_arrow(path)), lambda: write_parquet(path, [{"a": 1}])):
        with pytest.raises(MissingExtraError, match=r"a\.parquet: .*pip install 'freeprm\[datasets\]'"):
            use()


def test_without_datasets_the_extra_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"hf:owner/absent: .*pip install 'freeprm\[datasets\]'"):
        list(read_rows(Path("hf:owner/absent")))
