import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from freeprm.errors import RunFolderError
from freeprm.io.rollouts import read_rollouts, rollout_row
from freeprm.io.runs import read_manifest
from freeprm.objectives.dpo import DPO
from freeprm.stages.base import RunResult
from freeprm.stages.pairing import pair
from freeprm.training.groups import read_groups
from freeprm.training.settings import TrainSettings
from freeprm.types import Rollout


def written(path: Path, rollouts: list[Rollout]) -> Path:
    path.write_text("".join(json.dumps(rollout_row(rollout)) + "\n" for rollout in rollouts))
    return path


def rows_of(made: RunResult, name: str = "pairs") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.jsonl", tiny.rollouts(6, labels=[True, False, False, True]))


def test_pairs_are_rows_of_trl_that_tell_where_they_are_from(data: Path, tmp_path: Path):
    made = pair([data], out=tmp_path / "out")
    rows = rows_of(made)
    assert len(rows) == 6 * 4
    assert list(rows[0]) == [
        "prompt", "chosen", "rejected", "problem_id", "answer", "chosen_idx", "chosen_truncated", "rejected_idx",
        "rejected_truncated",
    ]  # fmt: skip
    by_key = {(one.problem_id, one.sample_idx): one for one in read_rollouts([data]).rollouts}
    for row in rows:
        chosen, rejected = (by_key[row["problem_id"], row[f"{side}_idx"]] for side in ("chosen", "rejected"))
        assert (row["prompt"], row["chosen"], row["rejected"]) == (chosen.prompt, chosen.response, rejected.response)
        assert (chosen.correct, rejected.correct) == (True, False)


def test_a_prompt_that_is_a_conversation_gives_messages(tmp_path: Path):
    chat = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    rollouts = [replace(one, prompt=chat) for one in tiny.rollouts(1, labels=[True, False])]
    (row,) = rows_of(pair([written(tmp_path / "chat.jsonl", rollouts)], out=tmp_path / "out"))
    assert row["prompt"] == list(chat)
    assert row["chosen"] == [{"role": "assistant", "content": rollouts[0].response}]


def test_responses_that_were_cut_off_are_paired_marked_and_warned_of(tmp_path: Path):
    rollouts = [replace(one, truncated=not one.correct) for one in tiny.rollouts(1, labels=[True, False])]
    with pytest.warns(UserWarning, match="some responses were cut off"):
        made = pair([written(tmp_path / "rows.jsonl", rollouts)], out=tmp_path / "out")
    (row,) = rows_of(made)
    assert (row["chosen_truncated"], row["rejected_truncated"]) == (False, True)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pairing": "one_to_one"},
        {"max_pairs": 2, "seed": 5},
        {"deduplicate": 0.05, "responses": 3, "instructions": 0.5, "balance": "instruction"},
    ],
)
def test_train_and_pair_make_the_same_pairs_of_real_solutions(real_data: Path, tmp_path: Path, how: dict[str, Any]):
    data = real_data / "qwen3_dapo_pointwise" / "rollouts.jsonl"
    made = pair([data], **how, out=tmp_path / "out")
    groups, _, operations = read_groups(
        [data], TrainSettings(model="m", group_size=64, **how), DPO(), columns=None, on_bad="raise"
    )
    trained = {
        (group.problem_id, chosen.sample_idx, rejected.sample_idx)
        for group in groups
        for chosen in group.rollouts
        for rejected in group.rollouts
        if chosen.correct and not rejected.correct
    }
    rows = rows_of(made)
    assert {(row["problem_id"], row["chosen_idx"], row["rejected_idx"]) for row in rows} == trained
    assert len(rows) == len(trained) == made.operations[-1].after.pairs
    assert made.operations[: len(operations)] == operations


def test_mixed_and_replaced_data_is_the_same_for_train_and_tells_its_sources(data: Path, tmp_path: Path):
    base = written(tmp_path / "base.jsonl", [replace(one, response="base") for one in tiny.rollouts(6)])
    other = [replace(one, problem_id=f"x{one.problem_id}", prompt=f"{one.prompt}!") for one in tiny.rollouts(6)]
    how = {"mix": {str(written(tmp_path / "other.jsonl", other)): 0.5}, "replace": {str(base): 0.5}}
    made = pair([data], **how, out=tmp_path / "out")
    groups, _, operations = read_groups([data], TrainSettings(model="m", **how), DPO(), columns=None, on_bad="raise")
    assert made.operations[:-1] == operations
    responses = {(one.problem_id, one.sample_idx): one.response for group in groups for one in group.rollouts}
    for row in rows_of(made):
        for side in ("chosen", "rejected"):
            assert row[side] == responses[row["problem_id"], row[f"{side}_idx"]]
            assert (row[f"{side}_source"] == str(base)) is (row[side] == "base")


def test_rollouts_that_are_left_can_be_kept_instead(data: Path, tmp_path: Path):
    ungraded = written(tmp_path / "some.jsonl", [*tiny.rollouts(6)[:-1], replace(tiny.rollouts(6)[-1], correct=None)])
    made = pair([ungraded], responses=3, out=tmp_path / "out", keep="rollouts")
    assert not (made.folder / "pairs.jsonl").exists()
    kept = read_rollouts([made.folder]).rollouts
    assert made.counts == {"rollouts": len(kept)}
    assert {one.correct for one in kept} == {True, False}
    assert made.operations[-1].name == "trainable"


def test_rollouts_kept_under_a_pairing_are_those_in_a_pair(data: Path, tmp_path: Path):
    made = pair([data], max_pairs=1, out=tmp_path / "out", keep="rollouts")
    kept = read_rollouts([made.folder]).rollouts
    for problem in {one.problem_id for one in kept}:
        assert sorted(bool(one.correct) for one in kept if one.problem_id == problem) == [False, True]
    assert len(kept) == made.operations[-1].after.responses == 12


def test_the_manifest_counts_every_operation_and_a_finished_run_gives_it_again(data: Path, tmp_path: Path):
    made = pair([data], responses=2, out=tmp_path / "out")
    manifest = read_manifest(made.folder)
    assert [done["name"] for done in manifest["counts"]["operations"]] == ["responses 2", "trainable", "pair cartesian"]
    assert manifest["counts"]["pairs"] == len(rows_of(made))
    again = pair([data], responses=2, out=tmp_path / "out")
    assert again == made


def test_a_changed_source_is_another_run(data: Path, tmp_path: Path):
    other = written(tmp_path / "other.jsonl", tiny.rollouts(6, seed=1))
    mix = {str(other): 0.5}
    pair([data], mix=mix, out=tmp_path / "out")
    written(other, tiny.rollouts(6, seed=2))
    with pytest.raises(RunFolderError, match=r"other\.jsonl has changed since"):
        pair([data], mix=mix, out=tmp_path / "out")


def test_broken_records_are_counted(data: Path, tmp_path: Path):
    data.write_text(data.read_text() + "{\n")
    made = pair([data], out=tmp_path / "out", on_bad="skip")
    assert made.counts == {"pairs": 24, "skipped: not valid JSON": 1}
