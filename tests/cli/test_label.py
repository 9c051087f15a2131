"""`freeprm label` from the command line."""

import json
from pathlib import Path

from typer.testing import CliRunner

from freeprm.cli.main import app
from freeprm.io.rows import write_rows


def test_options_of_the_labeler_reach_it(tmp_path: Path):
    base = {"problem_id": "p", "prompt": "3+4?", "answer": "7", "correct": True}
    write_rows(tmp_path / "graded.jsonl", [{**base, "response": "a2.\nx", "step_labels": [True, True]}])
    given = ["label", str(tmp_path / "graded.jsonl"), "--out", str(tmp_path / "out"), "--splitter", "lines", "--json"]
    options = ["--set", "model=m", "--set", "engine=scripted:Scripted", "--set", "n=3"]
    done = CliRunner().invoke(app, [*given, *options])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["counts"]["completions"] == 3
    assert {metric["metric"] for metric in result["metrics"]} >= {"step_accuracy"}
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "rollouts.jsonl").read_text().splitlines()]
    assert row["step_values"] == [2 / 3, 1.0]
    assert row["step_labeler"] == "monte_carlo"
