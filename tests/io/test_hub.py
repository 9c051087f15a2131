"""Names of data sets on a hub, read through a local copy, and what is said where the hub cannot be reached."""

from pathlib import Path

import pytest

import datasets
from freeprm.errors import RecordError
from freeprm.io.hub import HubName, is_hub_name, parse_hub_name, with_split
from freeprm.io.identity import content_hash
from freeprm.io.jsonl import read_rows, write_table


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
