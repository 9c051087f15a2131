"""`freeprm sample --early-stop` as people and programs meet it."""

import io
import json
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import tiny
from freeprm.cli import main
from freeprm.models.loading import template_hash, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a reward model, its reference, and problems."""
    made = tmp_path_factory.mktemp("early")
    reference, prm = tiny.save(made / "ref"), tiny.save(made / "prm", seed=1)
    of = Reference(source=str(reference), weights_sha256=weights_hash(reference))
    config = RewardConfig(
        beta=0.5, base=str(reference), objective="ce", reference=of, template_sha256=template_hash(tiny.tokenizer())
    )
    save_reward_config(config, prm)
    problems = [{"problem_id": f"p{index}", "prompt": f"{index} and 4?", "answer": "5"} for index in range(3)]
    (made / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    return made


def run(*arguments: object) -> tuple[int, str, str]:
    """The command line in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["freeprm", "sample", *map(str, arguments)])
        patch.setattr(sys, "path", sys.path[:])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        patch.setenv("COLUMNS", "200")
        try:
            main.run()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_it_draws_the_best_and_says_what_became_of_the_rest(folder: Path, tmp_path: Path):
    code, out, err = run(
        folder / "problems.jsonl", "--model", folder / "ref", "--early-stop", "--prm", folder / "prm", "--splitter",
        "lines", "--n", "4", "--batch", "2", "--max-new-tokens", "60", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert code == 0, err
    counts = json.loads(out)["counts"]
    assert (counts["problems"], counts["samples"]) == (3, 12)
    rows = [json.loads(line) for line in (tmp_path / "out" / "rollouts.jsonl").read_text().splitlines()]
    assert sum(row["selected"] for row in rows) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--early-stop",), "--early-stop: give the reward model that is to choose, --prm FOLDER"),
        (("--prm", "x"), "--prm goes with --early-stop"),
        (("--batch", "2"), "--batch goes with --early-stop"),
        (("--early-stop", "--prm", "x", "--workers", "2"), "--workers is for samples that are all finished"),
        (("--early-stop", "--prm", "x", "--splitter", "auto"), "choose one of step_markers, lines"),
        (("--early-stop", "--prm", "x", "--reward", "no"), "expected one of"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(folder: Path, tmp_path: Path, arguments, message):
    code, out, err = run(folder / "problems.jsonl", "--out", tmp_path / "out", *arguments)
    assert code != 0
    assert out == ""
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()
