"""`freeprm sample --early-stop` as people and programs meet it."""

import json
from pathlib import Path

import pytest

import tiny
from command_line import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a reward model, its reference, and problems."""
    made = tmp_path_factory.mktemp("early")
    tiny.save_pair(made)
    problems = [{"problem_id": f"p{index}", "prompt": f"{index} and 4?", "answer": "5"} for index in range(3)]
    (made / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    return made


def test_it_draws_the_best_and_says_what_became_of_the_rest(folder: Path, tmp_path: Path):
    code, out, err = run(
        "sample", folder / "problems.jsonl", "--model", folder / "ref", "--early-stop", "--prm", folder / "prm",
        "--splitter", "lines", "--n", "4", "--batch", "2", "--max-new-tokens", "60", "--out", tmp_path / "out",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    counts = json.loads(out)["counts"]
    assert (counts["problems"], counts["samples"]) == (3, 12)
    rows = [json.loads(line) for line in (tmp_path / "out" / "rollouts.jsonl").read_text().splitlines()]
    assert sum(row["selected"] for row in rows) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--early-stop",), "prm: is missing; give the reward model that is to choose, --prm FOLDER"),
        (("--prm", "x"), "--prm goes with --early-stop"),
        (("--batch", "2"), "--batch goes with --early-stop"),
        (("--early-stop", "--prm", "x", "--workers", "2"), "--workers is for samples that are all finished"),
        (("--early-stop", "--prm", "x", "--splitter", "auto"), "choose one of step_markers, lines"),
        (("--early-stop", "--prm", "x", "--reward", "no"), "expected one of"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(folder: Path, tmp_path: Path, arguments, message):
    code, out, err = run("sample", folder / "problems.jsonl", "--out", tmp_path / "out", *arguments)
    assert code != 0
    assert out == ""
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()
