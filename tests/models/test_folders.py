from pathlib import Path

import pytest

import tiny
from freeprm.errors import ModelError
from freeprm.models.folders import adapter_base, downloaded_revision, portable, resolve


def test_a_folder_is_itself(tmp_path):
    folder = tiny.save(tmp_path / "model")
    assert resolve(str(folder)) == folder


def test_a_name_that_is_no_hub_id_is_refused_with_what_was_expected():
    with pytest.raises(ModelError, match="Expected a path, a hub id such as"):
        resolve("not a name")


def test_a_folder_is_named_in_full_and_anything_else_as_given(tmp_path, monkeypatch):
    tiny.save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert portable("model") == str(tmp_path / "model")
    assert portable("meta-llama/Llama-3.1-8B-Instruct") == "meta-llama/Llama-3.1-8B-Instruct"
    assert portable("solver:base") == "solver:base"


def test_a_download_is_of_the_commit_that_its_folder_is_named_after():
    assert downloaded_revision(Path("hub/models--a--b/snapshots/0123abc")) == "0123abc"
    assert downloaded_revision(Path("models/mine")) is None


def test_an_adapter_names_its_base(tmp_path):
    assert adapter_base(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b", "revision": "r1"}')
    assert adapter_base(tmp_path) == ("a/b", "r1")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="base_model_name_or_path: is missing"):
        adapter_base(tmp_path)
