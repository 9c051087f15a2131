import json
from pathlib import Path
from typing import Any

import pytest

import freeprm.stages.early_sampling as module
from freeprm.errors import ConfigError, RunFolderError
from freeprm.models.loading import load_backbone
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.base import RunResult
from freeprm.stages.early_sampling import sample_early
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample
from freeprm.stages.selection import select

N = 6
SETTINGS: dict[str, Any] = {
    "model": "solver:base", "split": "test", "n_problems": 3, "n": N, "max_new_tokens": 150, "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def prm() -> ImplicitPRM:
    """Another solver than the one that draws, which is the reference."""
    config = RewardConfig(
        beta=0.5, base="b", objective="ce", splitter="step_markers",
        reference=Reference(source="solver:base", weights_sha256="0" * 64),
    )  # fmt: skip
    return ImplicitPRM(config, policy=load_backbone("solver:large"), reference=load_backbone("solver:base"))


@pytest.fixture(scope="module")
def made(prm, tmp_path_factory) -> RunResult:
    return sample_early("arithmetic", prm=prm, out=tmp_path_factory.mktemp("runs") / "early", **SETTINGS)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def test_every_sample_has_a_row_and_one_of_each_problem_is_selected_and_finished(made):
    found = rows(made.folder)
    assert [row["sample_idx"] for row in found] == [*range(N)] * 3
    for problem_id in {row["problem_id"] for row in found}:
        (selected,) = (row for row in found if row["problem_id"] == problem_id and row["selected"])
        assert selected["stop_reason"] != "abandoned"
        for row in found:
            if row["problem_id"] == problem_id:
                assert row["running_score"] == min(row["step_scores"])
                assert row["running_score"] <= selected["running_score"]
    abandoned = [row for row in found if row["stop_reason"] == "abandoned"]
    assert all(row["truncated"] for row in abandoned)
    assert made.counts["abandoned"] == len(abandoned) > 0
    assert made.counts["finished"] == len(found) - len(abandoned)
    assert made.cost.generated_tokens == sum(row["n_generated_tokens"] for row in found)


def test_rows_are_those_of_whole_sampling_as_far_as_they_go_for_fewer_tokens(made, tmp_path):
    whole = sample("arithmetic", out=tmp_path / "whole", workers=1, **SETTINGS)
    for row, full in zip(rows(made.folder), rows(whole.folder), strict=True):
        assert full["response"].startswith(row["response"])
        assert row["stop_reason"] in ("abandoned", full["stop_reason"])
    assert made.cost.generated_tokens < whole.cost.generated_tokens


def test_select_finds_the_selected_sample_in_the_rows(made, tmp_path):
    grade([made.folder], out=tmp_path / "graded")
    chosen = select([tmp_path / "graded"], out=tmp_path / "selection", n=[N])
    lines = (chosen.folder / "selections.jsonl").read_text().splitlines()
    by_problem = {row["problem_id"]: row for line in lines if (row := json.loads(line))["selector"] == "best_of_n/min"}
    for row in rows(made.folder):
        if row["selected"]:
            assert by_problem[row["problem_id"]]["sample_idx"] == row["sample_idx"]


def test_an_interrupted_run_ends_as_one_that_was_not(prm, made, tmp_path, monkeypatch):
    plain, seen = module._row, []

    def failing(problem: Any, *args: Any, **options: Any) -> Any:
        seen.append(problem.problem_id)
        if len(set(seen)) == 2:
            raise KeyboardInterrupt
        return plain(problem, *args, **options)

    monkeypatch.setattr(module, "_row", failing)
    with pytest.raises(KeyboardInterrupt):
        sample_early("arithmetic", prm=prm, out=tmp_path / "out", **SETTINGS)
    monkeypatch.setattr(module, "_row", plain)
    file = tmp_path / "out" / "rollouts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))  # a problem's last row is missing
    again = sample_early("arithmetic", prm=prm, out=tmp_path / "out", **SETTINGS)
    for row, other in zip(rows(again.folder), rows(made.folder), strict=True):
        assert row["response"] == other["response"]
        assert row["selected"] == other["selected"]
    assert again.counts == made.counts
    assert sample_early("arithmetic", prm=prm, out=tmp_path / "out", **SETTINGS).cost == again.cost
    with pytest.raises(RunFolderError, match="batch"):
        sample_early("arithmetic", prm=prm, out=tmp_path / "out", batch=2, **SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splitter": "auto"}, "choose one of step_markers, lines, blank_lines, sentences"),
        ({"n": 0}, "n: is 0"),
        ({"batch": 0}, "batch: is 0"),
        ({"temperature": 0.0}, "at temperature 0, where all samples of a problem are the same"),
        ({"reward": "no"}, "expected one of"),
    ],
)
def test_a_bad_setting_is_refused(prm, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        sample_early("arithmetic", prm=prm, out=tmp_path / "out", **{**SETTINGS, **settings})
