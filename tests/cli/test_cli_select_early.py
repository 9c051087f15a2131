"""`freeprm select --early-stop` as people and programs meet it."""

import json
from pathlib import Path

import pytest

import tiny
from command_line import run
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a reward model, its reference, and rollouts."""
    made = tmp_path_factory.mktemp("early")
    tiny.save_pair(made)
    write_rows(made / "rollouts.jsonl", [rollout_row(one) for one in tiny.rollouts(3)])
    return made


def test_it_chooses_and_says_what_it_took(folder: Path, tmp_path: Path):
    code, out, err = run(
        "select", folder / "rollouts.jsonl", "--early-stop", "--prm", folder / "prm", "--reward", "without-reference",
        "--n", "2,4", "--batch", "2", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert code == 0, err
    made = json.loads(out)
    assert {(metric["metric"], metric["n"]) for metric in made["metrics"]} == {
        (name, n) for name in ("accuracy", "steps_scored", "tokens_scored", "distinct_tokens_scored") for n in (2, 4)
    }
    assert made["counts"] == {"problems": 3, "responses": 12}
    assert made["cost"]["scored_tokens"] > 0
    assert len((tmp_path / "out" / "selections.jsonl").read_text().splitlines()) == 6


def test_people_get_a_table(folder: Path, tmp_path: Path):
    code, out, err = run(
        "select", folder / "rollouts.jsonl", "--early-stop", "--prm", folder / "prm", "--out", tmp_path / "out"
    )
    assert code == 0, err
    assert "tokens_scored" in out.replace(" ", "_")
    assert "written to" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--early-stop"], "prm: is missing; give the reward model that is to choose, --prm FOLDER"),
        (["--early-stop", "--prm", "x", "--aggregator", "sum"], "'sum' cannot be stopped early: a later step can add"),
        (["--early-stop", "--prm", "x", "--aggregator", "min,sum"], "no 'min,sum'"),
        (["--early-stop", "--prm", "x", "--weighting", "raw"], "--weighting is for rows with scores"),
        (["--early-stop", "--prm", "x", "--by", "level"], "--by is for rows with scores"),
        (["--early-stop", "--prm", "x", "--reward", "no"], "reward 'no': expected one of"),
        (["--prm", "x"], "--prm goes with --early-stop; without it the rows bring their scores: freeprm score"),
        (["--batch", "8"], "--batch goes with --early-stop"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder: Path, tmp_path: Path, options: list[str], message: str):
    code, out, err = run("select", folder / "rollouts.jsonl", *options, "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert err.startswith("ConfigError: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()
