"""Converting: real files of other projects in, other formats out, from Python and from the command line."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError, RecordError, RunFolderError
from freeprm.formats._reading import read_records
from freeprm.io.files import read_rows, write_table
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import write_rows
from freeprm.io.runs import read_manifest
from freeprm.stages.converting import convert
from freeprm.stages.grading import grade
from freeprm.types import Rollout

ROWS = [
    {"problem_id": problem, "sample_idx": index, "prompt": f"{problem}: 40 + 2?", "response": f"It is {40 + index}.",
     "answer": "42", "correct": index == 2}
    for problem in ("p", "q") for index in range(3)
]  # fmt: skip


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rollouts.jsonl", ROWS)
    return tmp_path / "rollouts.jsonl"


def rows(path: Path) -> list[Any]:
    return [row for _, row in read_rows(path)]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "freeprm", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def said(rollouts: Sequence[Rollout]) -> set[tuple[str, str, bool | None]]:
    return {(str(item.prompt), item.response, item.correct) for item in rollouts}


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.csv", "out.parquet", "out"])
def test_rows_survive_every_container(rollouts: Path, tmp_path: Path, name: str):
    made = convert([rollouts], out=tmp_path / "made" / name)
    assert made.counts == {"rows read": 6, "rollouts": 6, "rows written": 6, "files read as rows": 1}
    assert read_rollouts([made.folder]).rollouts == read_rollouts([rollouts]).rollouts


def test_a_folder_is_a_run_folder_that_the_next_stage_takes(rollouts: Path, tmp_path: Path):
    convert([rollouts], out=tmp_path / "trl", to="trl_unpaired")
    made = convert([tmp_path / "trl"], out=tmp_path / "ours")
    assert (read_manifest(made.folder) or {})["stage"] == "convert"
    assert grade([made.folder], out=tmp_path / "graded").counts["labels kept"] == 6


def test_a_file_has_its_manifest_beside_it_and_is_made_once(rollouts: Path, tmp_path: Path):
    out = tmp_path / "out.csv"
    first = convert([rollouts], out=out, to="ultrainteract_rollout", write_options={"dataset": "mine"})
    manifest = json.loads((tmp_path / "out.csv.manifest.json").read_text(encoding="utf-8"))
    assert manifest["stage"] == "convert"
    assert manifest["status"] == "complete"
    assert manifest["settings"]["write_options"] == {"dataset": "mine"}
    assert manifest["counts"] == first.counts
    assert first.counts == {"rows read": 6, "rollouts": 6, "rows written": 2, "files read as rows": 1}
    before = out.stat().st_mtime_ns
    assert convert([rollouts], out=out, to="ultrainteract_rollout", write_options={"dataset": "mine"}) == first
    assert out.stat().st_mtime_ns == before


def test_what_stands_there_already_is_not_written_over(rollouts: Path, tmp_path: Path):
    (tmp_path / "mine.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"mine\.csv: is there already, without a manifest"):
        convert([rollouts], out=tmp_path / "mine.csv")
    with pytest.raises(RunFolderError, match="is an input and the output at once"):
        convert([rollouts], out=rollouts)
    convert([rollouts], out=tmp_path / "out.csv")
    with pytest.raises(
        RunFolderError, match=r"out\.csv holds something else: its settings\.to is 'rows', not 'trl_unp"
    ):
        convert([rollouts], out=tmp_path / "out.csv", to="trl_unpaired")
    write_rows(rollouts, ROWS[:2])
    with pytest.raises(RunFolderError, match=r"rollouts\.jsonl has changed since"):
        convert([rollouts], out=tmp_path / "out.csv")


def test_nothing_is_left_behind_where_nothing_can_be_written(rollouts: Path, tmp_path: Path):
    for out in (tmp_path / "made" / "out.jsonl", tmp_path / "made" / "out"):
        with pytest.raises(DataError, match="step labels"):
            convert([rollouts], out=out, to="math_shepherd")
    assert not list((tmp_path / "made").rglob("*.json*"))
    with pytest.raises(ConfigError, match=r"cannot write \.xlsx; expected \.jsonl, \.json, \.csv, \.parquet"):
        convert([rollouts], out=tmp_path / "out.xlsx")


def test_rows_of_several_scorers_are_all_kept_in_our_own_rows_and_counted_elsewhere(tmp_path: Path):
    scored = [{**row, "scorer": scorer, "score": 1.0} for row in ROWS for scorer in ("a", "b")]
    write_rows(tmp_path / "scores.jsonl", scored)
    made = convert([tmp_path / "scores.jsonl"], out=tmp_path / "ours.parquet")
    assert made.counts["rows written"] == 12
    made = convert([tmp_path / "scores.jsonl"], out=tmp_path / "theirs.jsonl", to="trl_unpaired")
    assert made.counts["rows written"] == made.counts["skipped: again, with the scores of another scorer"] == 6


def test_what_is_skipped_and_what_is_not_written_is_counted_by_reason(tmp_path: Path):
    broken = {**ROWS[0], "sample_idx": 8, "correct": "yes"}
    ungraded = {**ROWS[0], "sample_idx": 9, "correct": None}
    write_rows(tmp_path / "a.jsonl", [*ROWS, broken, ungraded])
    with pytest.raises(RecordError, match=r"a\.jsonl:7: correct: is 'yes'"):
        convert([tmp_path / "a.jsonl"], out=tmp_path / "out")
    made = convert([tmp_path / "a.jsonl"], out=tmp_path / "out", to="ultrainteract_rollout", on_bad="skip")
    assert made.counts == {
        "rows read": 8, "rollouts": 7, "rows written": 2, "skipped: correct is not true, false, 1 or 0": 1,
        "not written: responses without label, to problems that have labelled ones": 1,
        "files read as rows": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "name", "n_rollouts"),
    [
        ("prm_raw_formats/samples_prm800k.jsonl", "prm800k", 6),
        ("prm_raw_formats/samples_math-shepherd.jsonl", "math_shepherd", 7),
        ("prm800k_phase1/train_solutions.jsonl", "prm800k_solutions", 808),
        ("processbench/gsm8k.json", "processbench", 400),
        ("search_and_learn_bon/scatyf3_llama3b_10x4.raw.jsonl", "search_and_learn", 40),
        ("gsm8k/rollouts_example_model_solutions.jsonl", "rows", 5276),
    ],
)
def test_real_files_are_recognised_and_survive_a_table(
    real_data: Path, tmp_path: Path, file: str, name: str, n_rollouts: int
):
    made = convert([real_data / file], out=tmp_path / "ours.csv")
    assert made.counts[f"files read as {name}"] == 1
    assert made.counts["rollouts"] == n_rollouts
    assert {key for key in made.counts if key.startswith("skipped")} == set()
    read = read_records([real_data / file]).rollouts
    assert said(read_rollouts([made.folder]).rollouts) == said(read)
    again = convert([made.folder], out=tmp_path / "theirs.parquet", to=name)
    assert said(read_records([again.folder], format=name).rollouts) == said(read)


def test_the_real_gsm8k_solutions_become_a_row_a_problem_as_the_papers_data_has_them(real_data: Path, tmp_path: Path):
    source = real_data / "gsm8k" / "rollouts_example_model_solutions.jsonl"
    made = convert([source], out=tmp_path / "out.parquet", to="ultrainteract_rollout")
    assert made.counts == {"rows read": 5276, "rollouts": 5276, "rows written": 1319, "files read as rows": 1}
    written = rows(made.folder)
    assert {len(row["completions"]) for row in written} == {4}
    right = sum(label for row in written for label in row["correctness"])
    assert right == sum(row["correct"] for row in rows(source))


@pytest.mark.slow
def test_the_published_step_ratings_in_parquet_become_ours(real_data: Path, tmp_path: Path):
    source = real_data / "prm800k_phase1" / "train_step_candidates.parquet"
    made = convert([source], out=tmp_path / "ours.jsonl")
    assert made.counts["files read as prm800k_candidates"] == 1
    assert made.counts["rows read"] == made.counts["rollouts"] == made.counts["rows written"] == 51835


def test_the_command_prints_counts_and_takes_what_it_wrote(real_data: Path, tmp_path: Path):
    source = real_data / "processbench" / "gsm8k.json"
    done = command("convert", source, "--to", "trl_stepwise", "--out", tmp_path / "steps.parquet", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert (counts["rows read"], counts["rollouts"]) == (400, 400)
    done = command("convert", tmp_path / "steps.parquet", "--from", "trl_stepwise", "--out", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert "rows written" in done.stdout
    assert len(rows(tmp_path / "back")) == counts["rows written"]


def test_the_command_maps_columns_sets_options_and_skips(tmp_path: Path):
    cells = [
        {"frage": "2 + 2?", "completions": ["4"], "correctness": [True]},
        {"frage": "", "completions": ["4"], "correctness": [True]},
    ]
    write_table(tmp_path / "a.csv", cells)
    arguments = ["convert", tmp_path / "a.csv", "--map", "prompt=frage", "--to", "ultrainteract_rollout"]
    done = command(*arguments, "--option", "dataset=mine", "--skip-bad", "--json", "--out", tmp_path / "b.jsonl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["rows written"] == 1
    assert [(row["prompt"], row["dataset"]) for row in rows(tmp_path / "b.jsonl")] == [("2 + 2?", "mine")]


def test_a_stage_that_is_given_foreign_rows_names_the_command_that_reads_them(real_data: Path, tmp_path: Path):
    done = command("grade", real_data / "processbench" / "gsm8k.json", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "problem_id: no such column" in done.stderr
    assert "The row is processbench: `freeprm convert INPUT --out rows.jsonl`" in done.stderr
    write_rows(tmp_path / "other.jsonl", [{"frage": "2 + 2?"}])
    done = command("grade", tmp_path / "other.jsonl", "--out", tmp_path / "out")
    assert (done.returncode, "freeprm convert" in done.stderr) == (1, False)


def test_a_data_set_of_the_hub_stands_where_a_file_may_and_is_refused_without_the_hub(tmp_path: Path):
    done = command("convert", "hf:owner/name#train", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "RecordError: hf:owner/name#train: the hub cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
