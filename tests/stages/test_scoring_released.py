"""Released models through the same stage: rows, resumption, and what does not go together on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import releases
from freeprm.cli.main import app
from freeprm.errors import ConfigError
from freeprm.io.rollouts import read_rollouts, rollout_row
from freeprm.models.loading import LoadOptions
from freeprm.scorers.base import ScorerSource
from freeprm.stages.scoring import score
from freeprm.stages.selection import select
from releases import ROLLOUTS, save_released, seeded


@pytest.fixture(scope="module")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_released(tmp_path_factory.mktemp("ms"), seeded(releases.mistral), releases.mistral_tokenizer())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rollouts.jsonl"
    file.write_text("".join(json.dumps({**rollout_row(item), "correct": True}) + "\n" for item in ROLLOUTS))
    return file


def test_its_scores_go_on_to_selection(shepherd: Path, rows: Path, tmp_path: Path):
    source = ScorerSource(scorer="math_shepherd", source=str(shepherd), options=LoadOptions(device="cpu"))
    made = score([rows], prm=source, out=tmp_path / "scores")
    found = read_rollouts([made.folder]).rollouts
    assert made.counts["scored"] == len(found) == len(ROLLOUTS)
    assert all(0 < score < 1 for rollout in found for score in rollout.step_scores or ())
    assert {rollout.scorer for rollout in found} == {"math_shepherd"}
    assert select([made.folder], out=tmp_path / "selection", n=[1]).metrics
    assert score([rows], prm=source, out=tmp_path / "scores") == made


def test_the_command_line_names_the_recipe_and_the_model(shepherd: Path, rows: Path, tmp_path: Path):
    given = ["score", str(rows), "--scorer", "math_shepherd", "--model", str(shepherd), "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "scores")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"]["scored"] == len(ROLLOUTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--scorer", "math_shepherd"], "--scorer NAME --model MODEL"),
        (["--scorer", "math_shepherd", "--model", "m", "--prm", "p"], "give one of"),
        (["--scorer", "math_shepherd", "--model", "m", "--beta", "2"], "--beta: is for log-ratios"),
        (["--scorer", "math_shepherd", "--model", "m", "--tokens"], "--tokens: is for log-ratios"),
    ],
)
def test_what_does_not_go_together_is_refused(rows: Path, given: list[str], message: str):
    error = CliRunner().invoke(app, ["score", str(rows), *given]).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)
