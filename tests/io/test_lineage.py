"""What a run was made from, found through manifests, also after folders were moved."""

from pathlib import Path

import pytest

from costs import charge, run
from freeprm.errors import RecordError
from freeprm.io.lineage import descent, runs_in, with_ancestors


def family(root: Path) -> dict[str, Path]:
    """A method from its rollouts to its selection, with rollouts for testing."""
    made: dict[str, Path] = {}
    made["train-rollouts"] = run(root / "train-rollouts", "sample", charge("decode", 1, 10))
    made["graded"] = run(root / "graded", "grade", inputs=[made["train-rollouts"]])
    made["labels"] = run(root / "labels", "label", charge("decode", 1, 10), inputs=[made["graded"] / "rollouts.jsonl"])
    made["prm"] = run(root / "prm", "train", charge("training", 1, 10), inputs=[made["labels"]])
    made["test-rollouts"] = run(root / "test-rollouts", "sample", charge("decode", 1, 10))
    made["scores"] = run(
        root / "scores", "score", charge("policy forward", 1, 10), inputs=[made["test-rollouts"]],
        models={"policy": str(made["prm"])},
    )  # fmt: skip
    made["selection"] = run(root / "selection", "select", inputs=[made["scores"]])
    return made


def names(runs) -> list[str]:
    return [item.folder.name for item in runs]


def test_a_selection_leads_to_all_that_it_was_made_from_ancestors_first(tmp_path):
    made = family(tmp_path)
    found = with_ancestors(runs_in([made["selection"]]))
    assert sorted(names(found)) == sorted(made)
    order = names(found)
    for child, parent in (("selection", "scores"), ("scores", "prm"), ("prm", "labels"), ("labels", "graded")):
        assert order.index(parent) < order.index(child)


def test_what_a_trained_model_descends_from_is_told_from_its_use(tmp_path):
    made = family(tmp_path)
    runs = with_ancestors(runs_in([made["selection"]]))
    assert {folder.name for folder in descent(runs)} == {"train-rollouts", "graded", "labels", "prm"}


def test_a_folder_of_runs_is_all_of_them_without_the_one_that_holds_them(tmp_path):
    made = family(tmp_path / "demo")
    run(tmp_path / "demo", "demo", charge("decode", 1, 10))  # says the sum of what is in it
    assert sorted(names(runs_in([tmp_path / "demo"]))) == sorted(made)


def test_a_file_of_a_run_is_the_run(tmp_path):
    folder = run(tmp_path / "rollouts", "sample")
    (folder / "rollouts.jsonl").write_text("")
    assert names(runs_in([folder / "rollouts.jsonl"])) == ["rollouts"]


def test_folders_that_were_moved_together_are_found(tmp_path):
    family(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    found = with_ancestors(runs_in([tmp_path / "there" / "selection"]))
    assert len(found) == 7
    assert not any(item.lost for item in found)


def test_relative_names_are_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(Path("runs/rollouts"), "sample")
    run(Path("runs/graded"), "grade", inputs=[Path("runs/rollouts")])
    monkeypatch.chdir("/")
    assert names(with_ancestors(runs_in([tmp_path / "runs" / "graded"]))) == ["rollouts", "graded"]


def test_an_input_that_is_gone_is_named_and_one_from_elsewhere_is_not(tmp_path):
    (tmp_path / "given.jsonl").write_text("")
    run(tmp_path, "demo")
    folder = run(tmp_path / "graded", "grade", inputs=[tmp_path / "given.jsonl", tmp_path / "gone"])
    (found,) = with_ancestors(runs_in([folder]))
    assert found.lost == (str(tmp_path / "gone"),)


def test_a_model_from_a_hub_is_no_run(tmp_path):
    folder = run(tmp_path / "prm", "train", settings={"model": "meta/llama", "reference": None})
    (found,) = with_ancestors(runs_in([folder]))
    assert (found.parents, found.lost) == ((), ())


def test_a_second_training_leads_to_the_first(tmp_path):
    first = run(tmp_path / "verifier", "train")
    second = run(tmp_path / "prm", "train", settings={"model": str(first)})
    assert names(with_ancestors(runs_in([second]))) == ["verifier", "prm"]


def test_labels_that_others_are_compared_with_are_no_ancestors(tmp_path):
    truth = run(tmp_path / "truth", "label")
    graded = run(tmp_path / "graded", "grade")
    labels = run(tmp_path / "labels", "label", inputs=[graded, truth], settings={"reference": str(truth)})
    assert names(with_ancestors(runs_in([labels]))) == ["graded", "labels"]


def test_runs_that_name_each_other_end(tmp_path):
    run(tmp_path / "a", "grade", inputs=[tmp_path / "b"])
    run(tmp_path / "b", "grade", inputs=[tmp_path / "a"])
    assert sorted(names(with_ancestors(runs_in([tmp_path / "a"])))) == ["a", "b"]


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(RecordError, match="no such file or folder"):
        runs_in([tmp_path / "nothing"])
    with pytest.raises(RecordError, match="holds no finished run"):
        runs_in([tmp_path])
