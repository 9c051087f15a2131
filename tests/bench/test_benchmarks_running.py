"""`freeprm bench`: rows to JSON, a page and a plot."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from freeprm.apps.benchmarks.running import read_rows, write_rows
from freeprm.bench.base import Row
from freeprm.cli.main import app
from freeprm.errors import ConfigError, PluginError, RecordError

ROW = Row(name="scoring/x", ours=1.5, peer=3.0, ratio=2.0, target=3.0, unit="s", details={"rounds": 2})
MISSING = replace(ROW, name="gpu/scoring", ours=None, ratio=None, missing="no CUDA device here", details={})
BENCHMARK = """
from freeprm.bench.base import Row

def PLUGIN(*, quick):
    yield Row(
        name="growth/N: x", ours=1.5, peer=3.0, ratio=2.0, target=3.0, unit="s",
        details={"axis": "N", "x": 4, "meaning": "responses", "quick": quick},
    )
"""


def test_rows_come_back_from_their_file(tmp_path):
    write_rows([ROW, MISSING], tmp_path / "new" / "rows.json")
    assert read_rows(tmp_path / "new" / "rows.json") == [ROW, MISSING]
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(RecordError, match="not the rows of benchmarks"):
        read_rows(tmp_path / "other.json")


def test_the_command_writes_rows_page_and_plot(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_benchmark.py").write_text(BENCHMARK)
    file, out = tmp_path / "rows.json", tmp_path / "out"
    arguments = ["bench", "a_benchmark:PLUGIN", "--quick", "--json", str(file), "--out", str(out), "--threads", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(file.read_text())
    assert {key: row[key] for key in ("name", "ours", "peer", "ratio", "target", "unit", "met")} == {
        "name": "growth/N: x", "ours": 1.5, "peer": 3.0, "ratio": 2.0, "target": 3.0, "unit": "s", "met": False,
    }  # fmt: skip
    assert row["details"]["quick"] is True
    assert "1 threads" in row["details"]["hardware"]
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "growth.svg", "rows.json"]
    assert "growth/N" in done.stdout


def test_an_unknown_benchmark_or_no_threads_are_refused_before_anything_runs():
    assert isinstance(CliRunner().invoke(app, ["bench", "scorin"]).exception, PluginError)
    assert isinstance(CliRunner().invoke(app, ["bench", "gpu", "--threads", "0"]).exception, ConfigError)
