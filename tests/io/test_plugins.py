"""Plug-ins by file name, by entry point and by path."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from freeprm.errors import PluginError
from freeprm.io import plugins
from freeprm.io.plugins import load, names


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that somebody else installed, with an entry point that works and one that does not."""
    (tmp_path / "their_package.py").write_text("class Theirs:\n    pass\n", encoding="utf-8")
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[freeprm.objectives]\ntheirs = their_package:Theirs\nbroken = their_package:Gone\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_package", raising=False)
    return tmp_path


def test_the_members_of_a_family_are_its_files(installed: Path):
    assert {"ce", "dpo", "kto", "nca"} <= set(names("objectives"))
    assert "base" not in names("objectives")
    assert {"theirs", "broken"} <= set(names("objectives"))
    assert "theirs" not in names("objectives", installed=False)
    assert names("objectives") == sorted(names("objectives"))


def test_a_member_is_loaded_by_its_files_name():
    from freeprm.objectives.ce import CE

    assert load("objectives", "ce") is CE


@pytest.mark.parametrize("family", ["objectives", "engines", "datasets", "scorers"])
def test_every_member_of_every_family_loads(family: str):
    for name in names(family, installed=False):
        plugin = load(family, name)  # a class or function, or a recipe that loads a model
        assert callable(plugin) or callable(plugin.load), f"{family}/{name}"


def test_an_installed_member_is_loaded_by_its_entry_points_name(installed: Path):
    assert load("objectives", "theirs").__name__ == "Theirs"
    with pytest.raises(
        PluginError, match=r"objectives: 'broken' is installed as their_package:Gone, but fails: .*Gone"
    ):
        load("objectives", "broken")


def test_our_own_member_comes_before_an_installed_one_of_its_name(monkeypatch: pytest.MonkeyPatch):
    from freeprm.objectives.ce import CE

    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("ce", "nowhere:Nothing", group)])
    assert load("objectives", "ce") is CE


def test_anyones_own_is_loaded_by_its_path(installed: Path):
    assert load("objectives", "their_package:Theirs").__name__ == "Theirs"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("their_package:Thiers", "has no attribute 'Thiers'"),
        ("their_pakage:Theirs", "No module named 'their_pakage'"),
        (":Theirs", "Empty module name"),
        ("their_package:", "has no attribute ''"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(installed: Path, path: str, message: str):
    with pytest.raises(PluginError, match=rf"{path}: .*{message}.*Expected 'package\.module:Name'"):
        load("objectives", path)


def test_an_unknown_name_is_refused_with_a_suggestion_and_the_known_ones(installed: Path):
    with pytest.raises(
        PluginError, match=r"objectives: no 'dop'\. Did you mean 'dpo'\? There are .*ce, .*, theirs; a class"
    ):
        load("objectives", "dop")
    with pytest.raises(PluginError, match="objectives: no 'base'"):
        load("objectives", "base")


def test_a_file_without_a_plug_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import freeprm.objectives

    (tmp_path / "unfinished.py").touch()
    monkeypatch.setattr(freeprm.objectives, "__path__", [*freeprm.objectives.__path__, str(tmp_path)])
    with pytest.raises(PluginError, match="'unfinished' is not a plug-in; expected PLUGIN = "):
        load("objectives", "unfinished")
