"""`freeprm score --prm` of a model of values."""

import json
from pathlib import Path

import pytest

import tiny
from freeprm.cli import main
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import write_rows
from freeprm.models.reward_config import RewardConfig, save_reward_config


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Rollouts, and a model that judges them with two tokens."""
    folder = tmp_path_factory.mktemp("work")
    write_rows(folder / "rollouts.jsonl", [rollout_row(rollout) for rollout in tiny.rollouts(2)])
    config = RewardConfig(
        beta=1.0, base="b", reference=None, objective="step_ce", parameterisation="tokens", read_at="steps",
        judgement=("+", "-"), splitter="lines",
    )  # fmt: skip
    save_reward_config(config, tiny.save(folder / "prm"))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["freeprm", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main.run()
    return int(exit_.value.code or 0)


def test_values_are_written_as_step_scores_and_the_same_command_resumes(work, tmp_path, monkeypatch, capsys):
    command = ("score", work / "rollouts.jsonl", "--prm", work / "prm", "--out", tmp_path / "scores", "--json")
    for _ in range(2):  # the second finds everything done
        assert run(monkeypatch, *command) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out)["counts"]["scored"] == 8
    rows = [json.loads(line) for line in (tmp_path / "scores" / "tokens-steps.jsonl").read_text("utf-8").splitlines()]
    assert {row["scorer"] for row in rows} == {"tokens steps"}
    assert all(len(row["step_scores"]) == len(row["step_spans"]) > 0 for row in rows)
    assert "reward" not in rows[0]


@pytest.mark.parametrize("option", [("--reward", "with-reference"), ("--beta", 2), ("--reference", "b"), ("--tokens",)])
def test_options_of_log_ratios_are_refused(option, work, tmp_path, monkeypatch, capsys):
    command = ("score", work / "rollouts.jsonl", "--prm", work / "prm", "--out", tmp_path / "scores")
    assert run(monkeypatch, *command, *option) != 0
    assert f"{option[0]}: is for log-ratios; {work / 'prm'} gives values" in " ".join(capsys.readouterr().err.split())


def test_what_takes_a_log_ratio_says_how_to_score_instead(work, tmp_path, monkeypatch, capsys):
    command = ("select", work / "rollouts.jsonl", "--prm", work / "prm", "--early-stop", "--out", tmp_path / "chosen")
    assert run(monkeypatch, *command) != 0
    assert "gives values (tokens, read at the end of the steps)" in " ".join(capsys.readouterr().err.split())
