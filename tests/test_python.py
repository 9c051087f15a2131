"""freeprm from Python, as a newcomer writes it: the whole loop, rows in memory, and what is refused."""

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import freeprm
from freeprm.errors import ConfigError, MissingExtraError, RecordError, RunFolderError
from freeprm.io.rows import write_rows
from freeprm.io.runs import read_manifest
from freeprm.settings import GradeSettings
from freeprm.types import Cost, Problem, Rollout

ROWS: list[dict[str, Any]] = [
    {"problem_id": "p", "sample_idx": index, "prompt": "6 * 7?", "response": f"\\boxed{{{41 + index}}}", "answer": "42"}
    for index in range(3)
]
TRAINER = {"max_steps": 2, "learning_rate": 1e-3, "warmup_steps": 0, "report_to": "none", "use_cpu": True}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loop() -> dict[str, freeprm.RunResult]:
    """The loop of the README."""
    sampled = freeprm.sample("arithmetic", n_problems=6, n=3)
    graded = freeprm.grade(sampled)
    trained = freeprm.train(graded, model="solver:base", trainer=TRAINER)
    scored = freeprm.score(graded, prm=trained)
    selected = freeprm.select(scored, n=[1, 3])
    evaluated = freeprm.evaluate(scored, dev_share=0.5)
    return {
        "sample": sampled, "grade": graded, "train": trained, "score": scored, "select": selected,
        "evaluate": evaluated,
    }  # fmt: skip


def test_the_loop_takes_no_paths_and_the_same_calls_find_their_runs_again(folder: Path):
    first = loop()
    for stage, made in first.items():
        assert made.folder.parent == Path("runs")
        assert made.folder.name.startswith(f"{stage}-")
    assert first["select"].metrics
    assert len(list(first["score"].rows())) == 18
    assert first["train"].log
    assert first["grade"].to_dataset().num_rows == len(first["grade"].to_pandas()) == 18
    again = loop()
    assert again == first
    for made in again.values():
        assert len((read_manifest(made.folder) or {})["sessions"]) == 1  # nothing was done a second time
    prm = freeprm.ImplicitPRM.from_pretrained(str(first["train"]), device="cpu", dtype="float32")
    best = prm.best_of_n("3 + 4?", ["Step 1: 3 + 4 = 7.\nThe answer is 7.", "The answer is 8."])
    assert best == prm.rank("3 + 4?", ["Step 1: 3 + 4 = 7.\nThe answer is 7.", "The answer is 8."])[0]


def pass_rate(made: freeprm.RunResult) -> float:
    (metric,) = made.metrics
    return metric.value


def test_a_stage_takes_a_path_several_rows_rollouts_or_a_data_set(folder: Path):
    write_rows(folder / "a.jsonl", ROWS)
    rollouts = [Rollout(**row) for row in ROWS]
    import datasets

    kinds = ["a.jsonl", Path("a.jsonl"), ["a.jsonl"], ROWS, iter(ROWS), rollouts, datasets.Dataset.from_list(ROWS)]
    for index, inputs in enumerate(kinds):
        made = freeprm.grade(inputs, out=f"out/{index}")
        assert pass_rate(made) == pytest.approx(1 / 3), index
    assert {file.parent for file in folder.rglob("inputs/*.jsonl")} == {folder / "out" / "inputs"}
    assert freeprm.grade(made, out="out/next").counts["labels kept"] == 3


def test_problems_in_memory_are_sampled(folder: Path):
    problem = Problem(problem_id="p", prompt="6 * 7?", answer="42")
    for name, inputs in {"problems": [problem], "rows": [{"prompt": "6 * 7?", "answer": "42"}]}.items():
        made = freeprm.sample(inputs, n=2, max_new_tokens=4, out=name)
        assert [row["answer"] for row in made.rows("rollouts")] == ["42", "42"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (3, "inputs: is '3', a int; expected a path"),
        (ROWS[0], "expected a path, an earlier result, or several; or rows"),
        ([1, 2], "'1', a int is no row"),
        (["a.jsonl", ROWS[0]], "stands among paths"),
    ],
)
def test_what_is_no_input_is_refused_by_name(inputs: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        freeprm.grade(inputs)


def test_a_setting_of_the_wrong_type_is_refused_by_name_and_one_that_fits_is_taken(folder: Path):
    with pytest.raises(ConfigError, match="timeout: is 'soon'; input should be a valid number"):
        freeprm.grade(ROWS, timeout="soon")  # type: ignore[arg-type]  # what users give
    with pytest.raises(ConfigError, match="no_answer: is 'right'; expected one of none, wrong"):
        freeprm.grade(ROWS, no_answer="right")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'grdr'"):
        freeprm.grade(ROWS, grdr="math")  # type: ignore[call-arg]
    with pytest.raises(RecordError, match="no such file"):
        freeprm.grade("nowhere.jsonl")
    assert freeprm.grade.run(ROWS, GradeSettings(timeout=3, out="out")).folder == Path("out")


def test_other_settings_are_another_folder_and_the_same_folder_is_refused_to_them(folder: Path):
    assert freeprm.grade(ROWS).folder != freeprm.grade(ROWS, no_answer="none").folder
    freeprm.grade(ROWS, out="out")
    with pytest.raises(RunFolderError, match=r"its settings\.no_answer is 'wrong', not 'none'"):
        freeprm.grade(ROWS, out="out", no_answer="none")


def test_a_stage_has_the_signature_and_the_defaults_of_its_settings():
    parameters = inspect.signature(freeprm.grade).parameters
    assert next(iter(parameters)) == "inputs"
    assert {name: parameters[name].default for name in ("grader", "timeout", "out")} == {
        "grader": "math", "timeout": 5.0, "out": None,
    }  # fmt: skip


def test_training_is_by_what_is_published_for_the_objective_unless_it_is_asked_for(folder: Path):
    graded = [{**row, "correct": row["sample_idx"] == 1} for row in ROWS]
    made = freeprm.train(graded, model="solver:base", objective="dpo", trainer={"max_steps": 1, "use_cpu": True})
    manifest: Mapping[str, Any] = json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))
    trainer = manifest["settings"]["trainer"]
    assert (trainer["learning_rate"], trainer["lr_scheduler_type"]) == (5e-7, "cosine_with_min_lr")
    assert manifest["settings"]["beta"] == 0.05
    assert "Yuan et al. 2024" in manifest["defaults"]["trainer.learning_rate"]


def test_rows_of_another_data_set_say_which_reads_them(folder: Path):
    write_rows(folder / "q.jsonl", [{"question": "6 * 7?", "answer": "So 42.\n#### 42"}])
    with pytest.raises(RecordError, match=r"The rows are gsm8k: give that name, and --dataset-option path=q\.jsonl"):
        freeprm.sample("q.jsonl")
    with pytest.raises(ConfigError, match=r"datasets math: path: is not given.*--dataset-option name=value"):
        freeprm.sample("math")


def test_rows_as_a_data_set_name_the_extra_where_datasets_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = freeprm.RunResult(folder=tmp_path, metrics=[], counts={}, cost=Cost(), operations=[])
    monkeypatch.setitem(sys.modules, "datasets", None)
    for use in (result.to_dataset, result.to_pandas):
        with pytest.raises(MissingExtraError, match=r"to_dataset: .*pip install 'freeprm\[datasets\]'"):
            use()
