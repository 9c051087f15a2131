"""`python -m benchmarks`: rows to JSON, a page and a plot."""

import json

from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks.__main__ import BENCHMARKS, app
from freeprm.errors import ConfigError, MissingExtraError, PluginError
from freeprm.io.plugins import load

BENCHMARK = """
from benchmarks.rows import Row

def PLUGIN(*, quick):
    yield Row(
        name="growth/N: x", ours=1.5, peer=3.0, ratio=2.0, target=3.0, unit="s",
        details={"axis": "N", "x": 4, "meaning": "responses", "quick": quick},
    )
"""


def test_every_benchmark_is_found_by_its_name():
    assert {"gpu", "growth", "memory", "scoring", "solver", "training"} <= set(BENCHMARKS)
    assert all(callable(load("benchmarks", path)) and path.endswith(f":{name}") for name, path in BENCHMARKS.items())


def test_the_command_writes_rows_page_and_plot(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_benchmark.py").write_text(BENCHMARK)
    file, out = tmp_path / "rows.json", tmp_path / "out"
    arguments = ["a_benchmark:PLUGIN", "--quick", "--json", str(file), "--out", str(out), "--threads", "1"]
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
    assert isinstance(CliRunner().invoke(app, ["scorin"]).exception, PluginError)
    assert isinstance(CliRunner().invoke(app, ["gpu", "--threads", "0"]).exception, ConfigError)
    assert isinstance(CliRunner().invoke(app, ["gpu", "--threads", "2", "--cpu-time"]).exception, ConfigError)


def test_without_matplotlib_plots_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    failed = CliRunner().invoke(app, ["gpu", "--out", str(tmp_path)]).exception
    assert isinstance(failed, MissingExtraError)
    assert "pip install 'freeprm[bench]'" in str(failed)
