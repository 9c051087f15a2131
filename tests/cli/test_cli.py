"""The command line as people and programs meet it: help, exit codes, what goes to which stream, and the whole path."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import freeprm
from command_line import Done, run
from freeprm.cli import main
from freeprm.io.rows import write_json, write_rows
from freeprm.io.runs import read_manifest

COMMANDS = (
    "demo", "sample", "grade", "label", "train", "score", "select", "evaluate", "compare", "cost", "verify",
    "convert", "pair",
)  # fmt: skip
HEAVY = ("torch", "transformers", "numpy", "pydantic", "matplotlib", "yaml", "sympy", "datasets", "pandas", "peft")


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "freeprm", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def refused(done: Done, kind: str, *parts: str) -> None:
    """One message of ours, without a traceback."""
    assert (done.code, done.out) == (1, ""), done
    assert done.err.startswith(f"{kind}: "), done.err
    assert done.err.count("\n") == 1, done.err
    for part in parts:
        assert part in done.err


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    rows = [
        {
            "problem_id": problem,
            "sample_idx": sample,
            "prompt": "6 * 7?",
            "response": f"A: {41 + sample}",
            "answer": "42",
        }
        for problem in ("p", "q")
        for sample in range(3)
    ]
    write_rows(tmp_path / "rollouts.jsonl", rows)
    return tmp_path / "rollouts.jsonl"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str):
    done = run(command, "--help")
    assert done.code == 0
    assert f"freeprm {command}" in done.out
    assert "--json" in done.out
    assert "--out" in done.out


def test_help_names_every_command():
    done = run("--help")
    assert done.code == 0
    for command in COMMANDS:
        assert f" {command} " in done.out


def test_help_loads_nothing_heavy():
    code = f"""
import sys
sys.argv = ["freeprm", "--help"]
from freeprm.cli.main import run
try: run()
except SystemExit: pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines() == ["[]"]


def test_the_version_is_told():
    assert run("--version") == Done(0, f"{freeprm.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'"),
        (["select"], "Missing argument"),
        (["select", "no.jsonl"], "'no.jsonl' does not exist"),
        (["select", ".", "--aggregater", "min"], "No such option"),
        (["select", ".", "--seed", "one"], "Invalid value for '--seed'"),
        (["evaluate", ".", "--dev", "no.jsonl"], "'no.jsonl' does not exist"),
        (["train", ".", "--config", "no.toml"], "'no.toml' does not exist"),
    ],
)
def test_a_wrong_usage_exits_with_2(arguments: list[str], message: str):
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err


def test_errors_of_ours_are_one_message_and_exit_with_1(rollouts: Path, tmp_path: Path):
    out = ("--out", tmp_path / "out")
    refused(run("select", rollouts, "--map", "score", *out), "ConfigError", "--map score: expected ours=theirs")
    refused(run("select", rollouts, "--n", "4,x", *out), "ConfigError", "4,x: expected whole numbers with commas")
    refused(run("select", rollouts, "--aggregator", "min,", *out), "ConfigError", "'min,': expected names with commas")
    refused(run("select", rollouts, "--map", "score=rm", *out), "RecordError", "asked for by --map score=rm")
    refused(
        run("score", rollouts, *out),
        "ConfigError",
        "give one of --prm FOLDER, --untrained MODEL, or --scorer NAME --model MODEL",
    )
    refused(run("score", rollouts, "--prm", "x", "--reward", "none", *out), "ConfigError", "with-reference")
    refused(run("train", rollouts, *out), "ConfigError", "model: is not given")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_folder_of_another_run_is_refused(rollouts: Path, tmp_path: Path):
    assert run("grade", rollouts, "--out", tmp_path / "out").code == 0
    done = run("grade", rollouts, "--regrade", "--out", tmp_path / "out")
    refused(done, "RunFolderError", "its settings.regrade is False, not True", "choose another --out")


def test_json_is_the_one_thing_on_standard_output(rollouts: Path, tmp_path: Path):
    done = run("grade", rollouts, "--out", tmp_path / "out", "--json")
    assert done.json["counts"] == {"responses": 6, "graded": 6}
    assert done.json["out"] == str(tmp_path / "out")
    assert done.json["metrics"] == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert "grade: 6" in done.err
    assert run("grade", rollouts, "--out", tmp_path / "out", "--json").json == done.json


def test_without_json_it_is_tables_for_people(rollouts: Path, tmp_path: Path):
    done = run("grade", rollouts, "--out", tmp_path / "[bold]")
    assert done.code == 0
    assert "0.333" in done.out  # two of six say 42
    assert "responses" in done.out
    assert f"written to {tmp_path / '[bold]'}" in done.out


def test_records_are_skipped_and_counted_only_when_asked_for(rollouts: Path, tmp_path: Path):
    with rollouts.open("a", encoding="utf-8") as file:
        file.write('{"cut\n{"cut\n{"problem_id": "p", "prompt": "6 * 7?"}\n')
    refused(run("grade", rollouts, "--out", tmp_path / "out"), "RecordError", "rollouts.jsonl:7: not valid JSON")
    counts = run("grade", rollouts, "--out", tmp_path / "out", "--skip-bad", "--json").json["counts"]
    assert counts["skipped: not valid JSON"] == 2
    assert counts["skipped: no column response"] == 1


def test_a_warning_is_one_readable_line(rollouts: Path, tmp_path: Path):
    with rollouts.open("rb") as file:
        torn = file.read(40)
    assert run("grade", rollouts, "--out", tmp_path / "out").code == 0
    manifest = {**(read_manifest(tmp_path / "out") or {}), "status": "running"}
    write_json(tmp_path / "out" / "manifest.json", manifest)
    with (tmp_path / "out" / "rollouts.jsonl").open("ab") as file:
        file.write(torn)
    done = run("grade", rollouts, "--out", tmp_path / "out")
    (line,) = [line for line in done.err.splitlines() if "cut off" in line]
    assert line.startswith(f"warning: {tmp_path / 'out' / 'rollouts.jsonl'}: the last row was cut off")
    assert ".py" not in done.err


def test_what_libraries_tell_each_other_is_not_shown(rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = "import warnings\nwarnings.warn('f is deprecated; call g', FutureWarning)\nwarnings.warn('of use')\n"
    (tmp_path / "warning_loss.py").write_text(module, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = run("train", rollouts, "--model", "m", "--objective", "warning_loss:Own", "--out", tmp_path / "out")
    assert "warning: of use\n" in done.err
    assert "deprecated" not in done.err


def test_a_plug_in_beside_the_user_is_found(rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_loss.py").write_text("class Own:\n    pass\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = run("train", rollouts, "--model", "m", "--objective", "own_loss:Onw", "--out", tmp_path / "out")
    refused(done, "PluginError", "module 'own_loss' has no attribute 'Onw'")


def test_ctrl_c_exits_with_130_and_the_same_command_goes_on(real_data: Path, tmp_path: Path):
    source = real_data / "gsm8k" / "rollouts_example_model_solutions.jsonl"
    command = ("grade", source, "--regrade", "--out", tmp_path / "out", "--json")
    process = start(*command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    rows = tmp_path / "out" / "rollouts.jsonl"
    while not (rows.exists() and rows.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stopped = finish(process)
    assert (stopped.code, stopped.out) == (130, ""), stopped.err
    assert stopped.err.endswith("interrupted; the same command goes on from here\n")
    assert "Traceback" not in stopped.err
    n_before = len(rows.read_bytes().splitlines())
    assert 0 < n_before < 5276
    done = run(*command)
    assert done.json["counts"]["responses"] == 5276
    ids = [(row["problem_id"], row["sample_idx"]) for row in map(json.loads, rows.read_text("utf-8").splitlines())]
    assert len(set(ids)) == len(ids) == 5276


def test_verify_says_what_holds():
    done = run("verify", "--json")
    assert done.json["checks"]
    assert all(check["passed"] for check in done.json["checks"])
    table = run("verify")
    assert table.code == 0
    assert "proposition_3_1/ce" in table.out
    assert "FAILS" not in table.out


# The whole path, on real solutions and a real model: each command takes what the one before it made.


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Path:
    """A folder with 40 graded solutions, and the same without labels."""
    folder = tmp_path_factory.mktemp("work")
    source = real_data / "gsm8k" / "rollouts_example_model_solutions.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines()[:40]
    rows = [json.loads(line) for line in lines]
    write_rows(folder / "graded.jsonl", rows)
    write_rows(folder / "ungraded.jsonl", [{key: row[key] for key in row if key != "correct"} for row in rows])
    return folder


TRAINING = (
    "--set", "trainer.learning_rate=1e-3", "--set", "trainer.per_device_train_batch_size=2",
    "--set", "trainer.gradient_accumulation_steps=1", "--set", "trainer.max_steps=3", "--set", "trainer.report_to=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(work: Path, stories: Path) -> Done:
    command = ("train", work / "graded.jsonl", "--model", stories, "--beta", "0.0001", "--out", work / "prm", *TRAINING)
    return run(*command, "--json")


@pytest.fixture(scope="module")
def scored(work: Path, trained: Done) -> Done:
    assert trained.code == 0, trained.err
    rewards = "with-reference, without-reference"
    return run(
        "score", work / "graded.jsonl", "--prm", work / "prm", "--reward", rewards, "--out", work / "scores", "--json"
    )


def test_rollouts_without_labels_are_not_trained_on(work: Path, stories: Path, tmp_path: Path):
    done = run("train", work / "ungraded.jsonl", "--model", stories, "--out", tmp_path / "prm")
    refused(done, "RecordError", "ungraded.jsonl:1: correct: no such column", "get them by `freeprm grade`")


def test_graded_rollouts_are(work: Path, stories: Path, tmp_path: Path):
    assert run("grade", work / "ungraded.jsonl", "--out", tmp_path / "graded").code == 0
    command = ("train", tmp_path / "graded", "--model", stories, "--out", tmp_path / "prm", *TRAINING)
    counts = run(*command, "--set", "trainer.max_steps=1", "--json").json["counts"]
    # One of the forty has no answer, and so is wrong; some are longer than the model's 512 tokens.
    assert "skipped: ungraded responses" not in counts
    assert counts["right responses"] + counts["wrong responses"] + counts["excluded: longer than the context"] == 40


def test_training_prints_one_json_document_and_warns_of_a_small_reachable_reward(work: Path, trained: Done):
    assert {metric["metric"] for metric in trained.json["metrics"]} >= {"train_loss", "train_margin"}
    assert trained.json["cost"]["trained_tokens"] > 0
    (warning,) = [line for line in trained.err.splitlines() if "earn" in line and line.startswith("warning: ")]
    assert "beta" in warning
    assert ".py:" not in trained.err
    assert (work / "prm" / "reward.json").exists()
    assert (work / "prm" / "model.safetensors").exists()


def test_a_dry_run_shows_settings_with_their_sources_and_trains_nothing(work: Path, stories: Path, tmp_path: Path):
    out = tmp_path / "prm"
    command = ("train", work / "graded.jsonl", "--model", stories, "--objective", "ipvrm", "--out", out, *TRAINING)
    shown = run(*command, "--dry-run", "--json").json
    assert shown["settings"]["beta"] == {"value": 10.0, "from": shown["settings"]["trainer.num_train_epochs"]["from"]}
    assert shown["settings"]["beta"]["from"].startswith("Gao et al. 2026, arXiv:2604.13197")
    assert shown["settings"]["trainer.learning_rate"] == {"value": 1e-3, "from": "--set"}
    assert shown["settings"]["objective"] == {"value": "ipvrm", "from": "option"}
    assert shown["settings"]["seed"] == {"value": 0, "from": "default"}
    assert (shown["steps"], shown["weights"]["frozen"]) == (3, 0)
    assert shown["counts"]["right responses"] > 0
    text = run(*command, "--dry-run").out
    assert "\nbeta                                 10.0                     Gao et al. 2026, arXiv:2604.13197" in text
    assert "Nothing was trained or written" in text
    assert not out.exists()


def test_a_finished_training_is_not_repeated(work: Path, stories: Path, trained: Done):
    command = ("train", work / "graded.jsonl", "--model", stories, "--beta", "0.0001", "--out", work / "prm", *TRAINING)
    assert run(*command, "--json").json == trained.json
    refused(run(*command, "--seed", "1"), "RunFolderError", "its settings.seed is 0, not 1")


def test_scores_are_one_file_a_reward(work: Path, scored: Done):
    assert scored.json["counts"]["scored"] == 35
    assert scored.json["counts"]["excluded: longer than the context"] == 5
    rows = {
        name: [json.loads(line) for line in (work / "scores" / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("with-reference", "without-reference")
    }
    assert {len(part) for part in rows.values()} == {35}
    for row in rows["with-reference"]:
        assert sum(row["step_scores"]) == pytest.approx(row["reward"], abs=1e-6)
        assert row["step_spans"][-1][1] == len(row["response"])


def test_selection_takes_a_score_folder_its_files_and_raw_rollouts(work: Path, scored: Done, tmp_path: Path):
    assert scored.code == 0, scored.err
    folder = run("select", work / "scores", "--n", "1,2", "--out", tmp_path / "1", "--json").json
    files = [work / "scores" / f"{name}.jsonl" for name in ("with-reference", "without-reference")]
    assert run("select", *files, "--n", "1,2", "--out", tmp_path / "2", "--json").json["metrics"] == folder["metrics"]
    assert {metric["scorer"] for metric in folder["metrics"]} >= {None, "with-reference", "without-reference"}
    raw = run("select", work / "graded.jsonl", "--n", "1,2", "--out", tmp_path / "3", "--json").json
    assert {metric["scorer"] for metric in raw["metrics"]} == {None}
    assert "best-of-N" in run("select", work / "scores", "--n", "1,2", "--out", tmp_path / "1").out


def test_training_takes_a_score_folder_each_response_once(work: Path, stories: Path, scored: Done, tmp_path: Path):
    assert scored.code == 0, scored.err
    command = ("train", work / "scores", "--model", stories, "--out", tmp_path / "prm", *TRAINING)
    counts = run(*command, "--set", "trainer.max_steps=1", "--json").json["counts"]
    assert counts["right responses"] + counts["wrong responses"] == 35
    assert counts["skipped: again, with the scores of another scorer"] == 35


def test_a_reward_model_is_no_input(work: Path, trained: Done, tmp_path: Path):
    assert trained.code == 0, trained.err
    for command in ("select", "grade", "evaluate"):
        done = run(command, work / "prm", "--out", tmp_path / command)
        refused(done, "RecordError", "a `freeprm train` without .jsonl files", f"--prm {work / 'prm'}")


def test_scores_without_a_known_first_error_are_evaluated_by_responses(work: Path, scored: Done, tmp_path: Path):
    assert scored.code == 0, scored.err
    done = run("evaluate", work / "scores", "--out", tmp_path / "out", "--json")
    areas = {"response_auc", "response_auc_within_problems"}
    assert {metric["metric"].removesuffix("_difference") for metric in done.json["metrics"]} == areas
    refused(
        run("evaluate", work / "scores", "--threshold", "0", "--out", tmp_path / "steps"), "DataError",
        "no response has step_scores and first_error",
    )  # fmt: skip


def test_processbench_is_scored_by_its_own_steps_and_evaluated(
    work: Path, trained: Done, real_data: Path, tmp_path: Path
):
    assert trained.code == 0, trained.err
    rows = json.loads((real_data / "processbench" / "gsm8k.json").read_text(encoding="utf-8"))
    rows.sort(key=lambda row: len(row["problem"]) + sum(map(len, row["steps"])))  # the model holds 512 tokens
    chosen = [row for right in (True, False) for row in [row for row in rows if (row["label"] == -1) is right][:12]]
    write_json(tmp_path / "short.json", chosen)
    scored = run("score", tmp_path / "short.json", "--prm", work / "prm", "--out", tmp_path / "scores", "--json").json
    assert scored["counts"]["scored"] == 23
    done = run("evaluate", tmp_path / "scores", "--threshold", "0", "--out", tmp_path / "evaluation", "--json").json
    assert {"processbench_f1", "first_error_accuracy", "step_auc"} <= {metric["metric"] for metric in done["metrics"]}
    assert all(metric["count"] == 23 for metric in done["metrics"] if metric["metric"] == "processbench_f1")


def test_an_untrained_model_scores_by_its_own_likelihood(work: Path, stories: Path, tmp_path: Path):
    write_rows(
        tmp_path / "one.jsonl", [json.loads((work / "graded.jsonl").read_text(encoding="utf-8").splitlines()[0])]
    )
    done = run("score", tmp_path / "one.jsonl", "--untrained", stories, "--out", tmp_path / "scores", "--json")
    assert done.json["counts"] == {"scored": 1}
    row = json.loads((tmp_path / "scores" / "reference-only.jsonl").read_text(encoding="utf-8"))
    assert row["reward"] < 0  # a log-probability


def test_samples_of_a_model_are_drawn_graded_and_selected_from(stories: Path, tmp_path: Path):
    problems = [{"problem_id": str(n), "prompt": "Once upon a time", "answer": "3"} for n in range(2)]
    write_rows(tmp_path / "problems.jsonl", problems)
    options = ("--model", stories, "--n", "2", "--max-new-tokens", "8", "--out", tmp_path / "rollouts", "--json")
    drawn = run("sample", tmp_path / "problems.jsonl", *options)
    assert drawn.json["counts"]["samples"] == 4
    assert drawn.json["cost"]["generated_tokens"] == 32  # 2 problems x 2 samples x 8 tokens
    graded = run("grade", tmp_path / "rollouts", "--out", tmp_path / "graded", "--json").json["counts"]
    assert graded["responses"] == 4
    refused(
        run("sample", "arithmatic", *options[:-3], "--out", tmp_path / "x"), "PluginError", "Did you mean 'arithmetic'"
    )
    done = run("sample", tmp_path / "problems.jsonl", *options, "--engine-option", "dtyp=float32")
    refused(done, "ConfigError", "dtyp: no such setting. Did you mean 'dtype'?")


def test_the_known_figures_come_out_of_anothers_scores(real_data: Path, tmp_path: Path):
    rollouts = real_data / "qwen_rm_maj_100x8" / "rollouts.jsonl"
    done = run("select", rollouts, "--map", "score=rm_score", "--n", "8", "--out", tmp_path / "out", "--json")
    values = {(metric["metric"], metric["selector"]): metric["value"] for metric in done.json["metrics"]}
    # As their owners state them: 100 problems, eight responses each.
    assert values["accuracy", "best_of_n/score"] == pytest.approx(0.94)
    # 93 by the first of equals; of the four problems with two first places three have a right one, worth a half each
    assert values["accuracy", "majority"] == pytest.approx(0.925)
    assert values["pass_at_k", None] == pytest.approx(0.96)


def test_threads_sleep_soon_while_they_wait_unless_the_environment_says_how(monkeypatch: pytest.MonkeyPatch):
    for given, expected in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)):
        monkeypatch.setattr(main.os, "environ", dict(given))
        run("--version")
        assert main.os.environ.get("GOMP_SPINCOUNT") == expected
