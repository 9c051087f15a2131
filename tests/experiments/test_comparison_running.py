"""Whole comparisons of a few problems, and the search for settings, as the command line runs them."""

import json
from functools import partial
from pathlib import Path

import pytest

from freeprm.errors import ConfigError, RunFolderError
from freeprm.experiments.comparison.running import Compared, compare, planned
from freeprm.experiments.comparison.settings import Comparison, Folders, load_comparison
from freeprm.experiments.comparison.tuning import tune
from freeprm.io.runs import read_manifest

TINY = """
model = "solver:base"
sizes = [2, 4]
against = "ce"
sampling = { max_new_tokens = 160, engine_options = { workers = 1 } }
train = { n_problems = 8, n = 4 }
dev = { n_problems = 8, n = 4 }
test = { n_problems = 6, n = 4 }
[generators]
base = { model = "solver:base" }
[training]
beta = 0.5
splitter = "step_markers"
trainer = { learning_rate = 5e-4, per_device_train_batch_size = 8, gradient_accumulation_steps = 1, report_to = [] }
[benchmarks]
dev = { rollouts = ["FOLDER/easy.json"], dev = "hard" }
hard = { rollouts = ["FOLDER/hard.json"], dev = "dev" }
[methods.untrained]
reward = "reference-only"
[methods.ce]
title = "implicit PRM, CE"
train = { objective = "ce" }
"""
MORE = """
[methods.alone]
of = "ce"
reward = "without-reference"
[methods.on]
start = "ce"
train = { objective = "dpo" }
"""
VALUES = """
[methods.orm]
train = { objective = "ce", parameterisation = "linear", read_at = "response" }
[methods.steps]
labels = "monte_carlo"
train = { objective = "step_ce", parameterisation = "tokens", read_at = "steps", step_labels = "hard" }
[methods.osv]
train = { objective = "osv", parameterisation = "linear", read_at = "steps", trainer = { num_train_epochs = 3.0 } }
[methods.autopsv]
start = "osv"
labels = "autopsv"
train = { objective = "step_ce", parameterisation = "linear", read_at = "steps", step_labels = "hard" }
[labels.autopsv]
labeler = "autopsv"
model_of = "osv"
options = { threshold = -1e-6 }
[labels.monte_carlo]
labeler = "monte_carlo"
options = { model = "solver:base", n = 2, max_new_tokens = 160, workers = 1 }
"""


STEPS = [  # as ProcessBench has them; half of the responses err at their second step
    {"id": f"steps-{row}", "problem": f"Ron has {row} books and buys 2. How many has he?", "label": label,
     "steps": [f"He had {row} books.", f"{row} + 2 = {row + 2 + wrong}.", f"The answer is {row + 2 + wrong}."],
     "final_answer_correct": not wrong}
    for row in range(8) for wrong, label in [(row % 2, 1 if row % 2 else -1)]
]  # fmt: skip


def load(folder: Path, text: str) -> Comparison:
    (folder / "easy.json").write_text(json.dumps(STEPS[:4]), encoding="utf-8")
    (folder / "hard.json").write_text(json.dumps(STEPS[4:]), encoding="utf-8")
    file = folder / "comparison.toml"
    file.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    return load_comparison(file)


def run(folder: Path, text: str, *, workers: int = 1, seed: int = 0) -> Compared:
    return compare(load(folder, text), out=folder / "out", seed=seed, workers=workers, command="freeprm compare")


def test_a_comparison_ends_in_tables(tmp_path: Path):
    made = run(tmp_path, TINY)
    page = (made.folder / "compare.md").read_text(encoding="utf-8")
    for text in (
        "implicit PRM, CE",
        "base @2",
        "## Weighted vote accuracy",
        "## First errors",
        "## Cost of development",
        "seed 0",
    ):
        assert text in page
    described = json.loads((made.folder / "compare.json").read_text(encoding="utf-8"))
    assert described["comparison"]["methods"]["ce"]["title"] == "implicit PRM, CE"
    assert len(described["metrics"]) == len(made.metrics)
    found = {(metric.scorer, metric.group) for metric in made.metrics if metric.metric == "processbench_f1"}
    assert found == {
        (name, f"generator={source}") for name in ("untrained", "ce") for source in ("base", "dev", "hard")
    }
    assert "F1, %, dev" in page


@pytest.mark.slow
def test_methods_can_be_added_to_a_comparison(tmp_path: Path):
    made = run(tmp_path, TINY)
    trained = Folders(made.folder).model("ce") / "model.safetensors"
    written = trained.stat().st_mtime_ns
    more = run(tmp_path, TINY + MORE, workers=2)
    assert trained.stat().st_mtime_ns == written
    assert [metric for metric in more.metrics if metric in made.metrics] == made.metrics
    assert {metric.scorer for metric in more.metrics if metric.metric == "accuracy"} >= {"alone", "on"}
    reward = json.loads((Folders(made.folder).model("on") / "reward.json").read_text(encoding="utf-8"))
    assert reward["reference"]["source"] == "solver:base"  # and not the model that it went on from
    with pytest.raises(RunFolderError, match="seed"):
        run(tmp_path, TINY, seed=1)


@pytest.mark.parametrize("has_truth", [False, True])
def test_dev_is_scored_only_where_the_first_errors_of_given_test_rollouts_may_be_known(tmp_path: Path, has_truth: bool):
    row = {"problem_id": "a", "sample_idx": 0, "prompt": "1 + 1?", "response": "2", "answer": "2"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row | ({"first_error": None} if has_truth else {})) + "\n")
    given = TINY.replace('{ model = "solver:base" }', f'{{ rollouts = ["{tmp_path / "test.jsonl"}"] }}')
    folders = Folders(tmp_path / "out")
    made = {run.folder: run.needs for run in planned(load(tmp_path, given), folders, seed=0)}
    assert (folders.scores("ce", "dev") in made) == (folders.graded("dev") in made) == has_truth
    assert made[folders.evaluation("ce", "test-base")] == ((folders.scores("ce", "dev"),) if has_truth else ())


@pytest.mark.parametrize(("given", "beta"), [("beta = 0.5\n", 0.5), ("", 0.05)])
def test_the_untrained_model_is_read_with_the_beta_that_others_are_trained_with(
    tmp_path: Path, given: str, beta: float
):
    folders = Folders(tmp_path / "out")
    made = {
        run.folder: run.stage for run in planned(load(tmp_path, TINY.replace("beta = 0.5\n", given)), folders, seed=0)
    }
    stage = made[folders.scores("untrained", "test-base")]
    assert isinstance(stage, partial)
    assert stage.keywords["prm"].beta == beta


OTHERS = """
[sources.weaker]
model = "solver:small"
[sources.harder]
n_problems = 3
dataset_options = { difficulty = 7 }
[sources.nobodys]
[policies]
methods = ["ce"]
n = 2
[methods.weaker]
train = { objective = "ce", replace = { weaker = 0.5, "elsewhere.jsonl" = 0.1 } }
[methods.harder]
train = { objective = "ce", mix = { harder = 0.3 } }
"""


def test_further_rollouts_are_drawn_where_a_method_names_them_and_trained_models_answer(tmp_path: Path):
    folders = Folders(tmp_path / "out")
    made = {run.folder: run for run in planned(load(tmp_path, TINY + OTHERS), folders, seed=5)}

    def settings(folder: Path) -> dict[str, object]:
        stage = made[folder].stage
        assert isinstance(stage, partial)
        return stage.keywords

    weaker, harder = settings(folders.sampled("train-weaker")), settings(folders.sampled("train-harder"))
    assert (weaker["model"], weaker["n_problems"], weaker["problem_seed"]) == (
        "solver:small",
        8,
        5,
    )  # the same problems
    assert (harder["model"], harder["n_problems"]) == ("solver:base", 3)
    assert harder["dataset_options"] == {"difficulty": 7}
    assert weaker["split"] == harder["split"] == "train"
    assert folders.sampled("train-nobodys") not in made
    drawn = folders.graded("train-weaker")
    assert settings(folders.model("weaker"))["replace"] == {str(drawn): 0.5, "elsewhere.jsonl": 0.1}
    assert drawn in made[folders.model("weaker")].needs
    answers = settings(folders.sampled("test-by-ce"))
    assert (answers["model"], answers["n"], answers["split"]) == (str(folders.model("ce")), 2, "test")
    assert made[folders.sampled("test-by-ce")].needs == (folders.model("ce"),)
    assert folders.baseline("test-by-ce") in made
    shared = (TINY + OTHERS).replace("beta = 0.5\n", "beta = 0.5\nmix = { nobodys = 0.1 }\n")
    assert folders.sampled("train-nobodys") in {run.folder for run in planned(load(tmp_path, shared), folders, seed=5)}


@pytest.mark.slow
def test_methods_of_every_kind_run_side_by_side(tmp_path: Path):
    made = run(tmp_path, TINY + MORE + VALUES, workers=2)
    compared = {metric.scorer for metric in made.metrics if metric.metric == "accuracy"}
    assert compared == {None, "untrained", "ce", "alone", "on", "orm", "steps", "osv", "autopsv"}
    measured = {metric.scorer for metric in made.metrics if metric.metric == "processbench_f1"}
    assert measured == compared - {None, "orm"}  # which gives one score a response


TRIES = """
[tuning]
tries = [{ trainer = { learning_rate = 0.0 } }, { trainer = { learning_rate = 5e-4 } }]
n = 2
dev = { n_problems = 6, n = 4 }
"""


@pytest.mark.slow
def test_a_search_tries_every_setting_for_every_method_and_goes_on_from_the_best(tmp_path: Path):
    made = tune(load(tmp_path, TINY + MORE + TRIES), out=tmp_path / "out", seed=3, workers=2, command="freeprm compare")
    assert [(trial.method, trial.settings["trainer"]["learning_rate"]) for trial in made.trials] == [
        ("ce", 0.0), ("ce", 5e-4), ("on", 0.0), ("on", 5e-4)
    ]  # fmt: skip
    assert [sum(trial.is_best for trial in made.trials if trial.method == name) for name in ("ce", "on")] == [1, 1]
    best = next(index for index, trial in enumerate(made.trials) if trial.is_best)
    manifest = read_manifest(Folders(made.folder).model("on-try0")) or {}
    assert manifest["settings"]["model"].endswith(f"ce-try{best}/model")
    assert "| ce * |" in (made.folder / "tune.md").read_text(encoding="utf-8")
    assert not list((tmp_path / "out").glob("rollouts/test*"))


def test_a_search_without_anything_to_try_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"tuning\.tries: there is none"):
        tune(load(tmp_path, TINY), out=tmp_path / "out", seed=0, workers=1, command="freeprm compare --tune")
    assert not (tmp_path / "out").exists()
