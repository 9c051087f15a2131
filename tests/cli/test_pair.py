"""`freeprm pair` as people and programs meet it."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tiny
from freeprm.cli import main, output
from freeprm.cli.values import read_shares
from freeprm.errors import ConfigError
from freeprm.io.rollouts import rollout_row


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(rollout_row(one)) + "\n" for one in tiny.rollouts(4)))
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in this process: exit code, standard output, standard error."""

    def one(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["freeprm", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", sys.path[:])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        monkeypatch.setattr(output, "console", Console(width=150))
        with pytest.raises(SystemExit) as exit_:
            main.run()
        return (int(exit_.value.code or 0), *capsys.readouterr())

    return one


def test_a_person_reads_what_was_done(run: Any, data: Path, tmp_path: Path):
    code, out, err = run("pair", data, "--out", tmp_path / "out", "--responses", 3, "--max-pairs", 1)
    assert code == 0, err
    assert "responses 3" in out
    assert "pair cartesian, at most 1" in out
    assert "4 responses left out by subsampling" in out
    assert out.rstrip().endswith(str(tmp_path / "out"))


def test_a_program_reads_every_operation(run: Any, data: Path, tmp_path: Path):
    base = tmp_path / "base=1.jsonl"
    base.write_text(data.read_text())
    code, out, err = run("pair", data, "-o", tmp_path / "out", "--json", "--replace", f"{base}=0.5", "--deduplicate", 1)
    assert code == 0, err
    made = json.loads(out)
    names = [done["name"] for done in made["operations"]]
    assert names == [f"replace {base} 0.5", "deduplicate 1", "trainable", "pair cartesian"]
    assert made["operations"][0]["left_out"] == {"responses replaced by another source's": 8}


def test_rollouts_can_be_kept(run: Any, data: Path, tmp_path: Path):
    code, _, err = run("pair", data, "--out", tmp_path / "out", "--keep", "rollouts", "--balance", "dataset")
    assert code == 0, err
    assert (tmp_path / "out" / "rollouts.jsonl").exists()


@pytest.mark.parametrize("given", ["runs/b", "runs/b=", "=0.5", "runs/b=half"])
def test_a_share_that_is_none_is_refused(given: str):
    with pytest.raises(ConfigError, match=rf"--mix {given}: expected ROLLOUTS=SHARE"):
        read_shares([given], "--mix")


def test_a_source_twice_is_refused():
    with pytest.raises(ConfigError, match="expected each source once"):
        read_shares(["a=0.5", "a=0.2"], "--replace")
    assert read_shares(["a=b=0.5"], "--replace") == {"a=b": 0.5}
    assert read_shares([], "--mix") == {}
