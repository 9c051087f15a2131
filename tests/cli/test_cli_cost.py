"""`freeprm cost` on manifests, as tables and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from costs import charge, run
from freeprm.cli.main import app
from freeprm.errors import ConfigError

Cli = Callable[..., str]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """What the command prints."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["cost", *(str(item) for item in arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


@pytest.fixture
def prm(tmp_path: Path) -> Path:
    drawn = run(tmp_path / "train", "sample", charge("decode", 400, 800_000, 8), seconds=10.0)
    return run(
        tmp_path / "prm", "train", charge("training", 100, 600_000, 60), inputs=[drawn], sequence_tokens=200,
        counts={"right responses": 1, "wrong responses": 1, "prompts": 1},
    )  # fmt: skip


def data(printed: str) -> dict:
    return json.loads(printed)


def test_both_conventions_are_printed_unless_one_is_named(cli: Cli, prm: Path):
    both = data(cli(f"ce={prm}", "--json"))["methods"][0]["development"]
    assert {name: part["flops"] for name, part in both.items()} == {"as published": 1_200_000, "all-in": 1_400_068}
    assert list(data(cli(prm, "--as", "published", "--json"))["methods"][0]["development"]) == ["as published"]


def test_what_is_charged_can_be_switched(cli: Cli, prm: Path):
    (own,) = data(cli(prm, "--charge", "training", "--json"))["methods"][0]["development"].values()
    assert own["flops"] == 600_060
    (own,) = data(cli(prm, "--charge", "training,generation", "--no-attention", "--json"))["methods"][0][
        "development"
    ].values()
    assert own["flops"] == 1_400_000


def test_the_papers_figures_need_no_runs(cli: Cli):
    printed = cli("--published")
    for number in ("146.5", "149.3", "38.8", "61,919", "about 62,000 generated tokens"):
        assert number in " ".join(printed.split())


def test_a_page_and_figures_are_written_where_asked_for(cli: Cli, prm: Path, tmp_path: Path):
    cli(f"ce={prm}", "--out", tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "cost.html", "development-as-published.svg", "development-all-in.svg",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give run folders"),
        (["PRM", "--as", "paper"], "expected published or all-in"),
        (["PRM", "--as", "published", "--charge", "training"], "no --charge beside it"),
        (["PRM", "--no-attention"], "goes with --charge"),
        (["PRM", "--charge", "electricity"], "no group 'electricity'"),
        (["PRM", "--best-of-n"], "no scores among its folders"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, prm: Path, arguments: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        cli(*(str(prm) if item == "PRM" else item for item in arguments))
