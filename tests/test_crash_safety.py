"""Stages that are killed at random moments, again and again, end in the records of an uninterrupted run.

Three ways to die: SIGKILL after some time, SIGKILL just before the n-th change to a file of the folder, and a signal
in the middle of a write, which leaves a torn row. The demo is the whole pipeline: sample, grade, reference, train,
score, select, evaluate, report.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from costs import charge, timeless
from costs import run as costing
from fork_server import KILLED_BY
from freeprm.io.manifest import read_cost
from freeprm.io.rows import write_rows
from freeprm.io.runs import read_manifest
from freeprm.models.loading import load_backbone, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config

COMMANDS = ("sample", "grade", "score")
"""Stages that append rows, of which one may be torn."""
STAGES = (*COMMANDS, "select", "evaluate", "train", "cost")
MOMENTS = ({"share of events": 0.3}, {"share of bytes": 0.6}, {"share of bytes": 0.97}, {"share of seconds": 0.5})
"""When a run is killed: at one of each kind of moment, as shares of the uninterrupted run. Seconds come last, as on a
busy machine a run may be finished by then."""
KILLS = {"sample": 16, "grade": 10, "score": 12, "select": 6, "evaluate": 6, "train": 14, "cost": 4}
"""At random moments: 68 in all."""
PIPELINE_KILLS = 50
PAGES = ("*.html", "*.svg", "*.md")
"""Written whole or not at all."""
RESULTS = ("*.jsonl", "metrics.json", "model.safetensors", "reward.json", "log.json")


@dataclass(frozen=True)
class ForkServer:
    """Where runs are born and killed; see fork_server.py."""

    process: subprocess.Popen[str]

    def run(self, stage: str, out: Path, kill: dict[str, Any] | None = None, **arguments: str) -> dict[str, Any]:
        order = {"stage": stage, "out": str(out), "arguments": arguments, "kill": kill}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("fork_server.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"
        yield ForkServer(process)
        process.communicate()  # closes its input, which ends it


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What each stage is given."""
    folder = tmp_path_factory.mktemp("data")
    base, policy = (tiny.save(folder / name, seed=seed) for seed, name in enumerate(("base", "policy")))
    reference = Reference(source=str(base), weights_sha256=weights_hash(base))
    config = RewardConfig(beta=0.5, base=str(base), objective="ce", reference=reference)
    save_reward_config(config, load_backbone(str(policy)).folder)
    problems = [{"problem_id": f"p{index}", "prompt": f"{index} + {index}?", "answer": "3"} for index in range(8)]
    write_rows(folder / "problems.jsonl", problems)
    rollouts = [
        {
            "problem_id": f"p{index // 4}", "sample_idx": index % 4, "prompt": f"{index // 4} + 1?", "answer": "3",
            "response": "" if index == 5 else f"Step 1: so be it.\nThe answer is {index % 5}",
        }
        for index in range(32)
    ]  # fmt: skip
    write_rows(folder / "rollouts.jsonl", rollouts)
    graded = [{**row, "response": row["response"] or "none", "correct": index % 3 == 0} for index, row in
              enumerate(rollouts)]  # fmt: skip
    write_rows(folder / "graded.jsonl", graded)
    scored = [
        {**row, "scorer": "a", "pred": str(index % 5), "step_scores": [0.5 - index % 7, index % 4],
         "steps": [row["response"][:2], row["response"][2:]], "first_error": None if row["correct"] else index % 2}
        for index, row in enumerate(graded)
    ]  # fmt: skip
    write_rows(folder / "scores.jsonl", scored)
    counts = {"prompts": 8, "right responses": 11, "wrong responses": 21}
    return {
        "sample": {"model": str(base), "problems": str(folder / "problems.jsonl")},
        "grade": {"rollouts": str(folder / "rollouts.jsonl")},
        "score": {"prm": str(policy), "rollouts": str(folder / "rollouts.jsonl")},
        "select": {"scores": str(folder / "scores.jsonl")},
        "evaluate": {"scores": str(folder / "scores.jsonl")},
        "train": {"model": str(base), "rollouts": str(folder / "graded.jsonl")},
        "cost": {"run": str(costing(folder / "run", "train", charge("training", 100, 10**12, 10**9), counts=counts))},
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_moments_of_every_kind_ends_in_the_same_records(stage: str, life):
    out = life.folder / "killed"
    for moment in MOMENTS:
        life.kill(out, moment)
    n_torn = life.finish(out)
    assert n_torn > 0 or stage not in COMMANDS  # torn rows were among what was met


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_random_moments_ends_in_the_same_records(stage: str, life):
    rng = random.Random(stage)
    kills_left, trial, n_repaired = KILLS[stage], 0, 0
    while kills_left > 0:
        trial += 1
        out = life.folder / f"killed-{trial}"
        for _ in range(min(kills_left, rng.randint(1, 3))):
            kind = rng.choice(["share of seconds", "share of events", "share of bytes"])
            kills_left -= life.kill(out, {kind: rng.random()})
        n_repaired += life.finish(out)
    assert n_repaired > 0 or stage not in COMMANDS


@pytest.mark.parametrize("stage", ["train"])
def test_what_is_known_of_the_reference_when_it_is_killed_is_not_computed_again(stage: str, life):
    out, before, n_entries = life.folder / "killed", dict[Path, int](), []
    # Before the folder is made; in the middle of an entry; before an entry has its name, or the next one is begun.
    for event, torn in ((1, {}), (6, {"bytes": 200}), (7, {}), (8, {})):
        assert life.kill_at(out, {"event": event, "under": "reference", **torn})
        entries = {file: file.stat().st_mtime_ns for file in (out / "reference").glob("*.safetensors")}
        assert before.items() <= entries.items()
        before = entries
        n_entries.append(len(entries))
        for file in entries:
            whole = load_file(life.folder / "whole" / "reference" / file.name)
            torch.testing.assert_close(load_file(file), whole, atol=0, rtol=0)
    assert n_entries[0] == 0 < n_entries[1] < n_entries[2] < n_entries[3]
    life.finish(out)


@pytest.fixture(scope="module")
def pipeline(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> "Life":
    return begun(fork_server, "demo", {}, tmp_path_factory.mktemp("pipeline"))


def killed_on_the_way(pipeline: "Life", name: str, rng: random.Random, *, n_kills: int) -> list[str]:
    """Kill a pipeline again and again, and let it finish; the stages in which it was killed."""
    out, met = pipeline.folder / name, list[str]()
    events = [event.split("/")[0] for event in pipeline.uninterrupted["events"] if "/" in event or "html" in event]
    n_events = Counter(events)  # by folder, in their order; and of the report
    for number, under in enumerate(sorted(rng.sample(list(n_events), k=n_kills), key=list(n_events).index)):
        sizes = [len(content) for file, content in pipeline.expected.items() if file.startswith(under)]
        point = {"event": rng.randint(1, n_events[under]), "under": under}
        torn = {"bytes": int(rng.random() * max(sizes, default=500))} if number % 2 else {}
        if not pipeline.kill_at(out, point | torn):
            break
        runs = [read_manifest(file.parent) or {} for file in out.rglob("manifest.json")]
        under_way = [run["stage"] for run in runs if run["status"] != "complete"]
        met.append(next((stage for stage in under_way if stage != "demo"), "demo"))
    pipeline.finish(out)
    return met


def test_a_pipeline_that_is_killed_on_the_way_ends_in_the_same_results(pipeline):
    assert len(killed_on_the_way(pipeline, "killed", random.Random(0), n_kills=2)) == 2


@pytest.mark.slow
def test_a_pipeline_killed_at_50_random_moments_ends_in_the_same_results(pipeline):
    rng, met, trial = random.Random("pipeline"), list[str](), 0
    while (left := PIPELINE_KILLS - len(met)) > 0:
        trial += 1
        met += killed_on_the_way(pipeline, f"killed-{trial}", rng, n_kills=min(left, rng.randint(1, 12)))
    assert {"sample", "grade", "train", "score", "select", "evaluate", "demo"} <= {*met}, met


@dataclass(frozen=True)
class Life:
    """Runs of one stage beside its uninterrupted run."""

    fork_server: ForkServer
    stage: str
    arguments: dict[str, str]
    folder: Path
    uninterrupted: dict[str, Any]
    expected: dict[str, bytes]

    def kill(self, out: Path, moment: dict[str, float]) -> bool:
        """Begin or go on, and kill it then; whether it was still there to be killed."""
        ((kind, share),) = moment.items()
        size = max(map(len, self.expected.values()))
        point = {
            "share of seconds": {"seconds": share * self.uninterrupted["seconds"]},
            "share of events": {"event": 1 + int(share * len(self.uninterrupted["events"]))},
            "share of bytes": {"bytes": int(share * size)},
        }[kind]
        return self.kill_at(out, point)

    def kill_at(self, out: Path, point: dict[str, Any]) -> bool:
        """The same, at a point that the fork server knows."""
        status = self.fork_server.run(self.stage, out, point, **self.arguments)["status"]
        check_nothing_is_lost_or_changed(out, self.expected)
        assert status == 0 or -status in KILLED_BY
        return status != 0

    def finish(self, out: Path) -> int:
        """Go on to the end; the number of sessions that found a torn row."""
        assert self.fork_server.run(self.stage, out, **self.arguments)["status"] == 0
        assert files_of(out) == self.expected
        whole = self.folder / "whole"
        runs = [file.parent.relative_to(whole) for file in whole.rglob("manifest.json")]
        return sum(check_manifest(out, whole, run) for run in runs)


@pytest.fixture
def life(stage: str, fork_server: ForkServer, data, tmp_path: Path) -> Life:
    return begun(fork_server, stage, data[stage], tmp_path)


def begun(fork_server: ForkServer, stage: str, arguments: dict[str, str], folder: Path) -> Life:
    uninterrupted = fork_server.run(stage, folder / "whole", **arguments)
    assert uninterrupted["status"] == 0
    return Life(fork_server, stage, arguments, folder, uninterrupted, files_of(folder / "whole"))


def files_of(folder: Path, names: Sequence[str] = (*PAGES, *RESULTS)) -> dict[str, bytes]:
    """The contents of files, by their paths."""
    found = (file for name in names for file in folder.rglob(name))
    return {str(file.relative_to(folder)): _timeless(file) for file in found}


def _timeless(file: Path) -> bytes:
    """What a file holds, but for the times in a training log or a page."""
    if file.name == "report.html":
        return re.sub(rb'(?s)<section id="cost".*?</section>', b"", file.read_bytes())
    if file.name != "log.json":
        return file.read_bytes()
    entries = [{key: value for key, value in row.items() if "runtime" not in key and "_per_second" not in key}
               for row in json.loads(file.read_text())]  # fmt: skip
    return json.dumps(entries, sort_keys=True).encode()


def check_nothing_is_lost_or_changed(out: Path, expected: dict[str, bytes]) -> None:
    """Whole rows on disk are rows of the uninterrupted run, each once; pages are its pages, or not there yet."""
    for file in out.rglob("*.jsonl"):
        rows = file.read_bytes().split(b"\n")[:-1]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(expected[str(file.relative_to(out))].split(b"\n"))
    assert files_of(out, PAGES).items() <= expected.items()


def check_manifest(out: Path, whole: Path, run: Path = Path()) -> int:
    """The manifest of a run below counts what the uninterrupted one's does; the sessions that found a torn row."""
    ours, theirs = read_manifest(out / run), read_manifest(whole / run)
    assert ours is not None
    assert theirs is not None
    assert ours["status"] == "complete"
    for key in ("settings", "counts"):
        ours[key], theirs[key] = (
            json.dumps({name: value for name, value in one[key].items() if name != "resumed"}, sort_keys=True)
            for one in (ours, theirs)
        )
        assert ours[key].replace(str(out), str(whole)) == theirs[key]
    assert timeless(read_cost(ours["cost"])) == timeless(read_cost(theirs["cost"]))
    assert not [*(out / run).glob("*.partial"), *(out / run).glob(".tmp*")]
    return sum("repaired" in session for session in ours["sessions"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", COMMANDS)
def test_a_command_killed_at_random_moments_ends_in_the_same_records(stage: str, data, tmp_path: Path):
    given = data[stage]
    arguments = {
        "sample": [given.get("problems"), "--model", given.get("model"), "--max-new-tokens", 6, "--n", 4],
        "grade": [given.get("rollouts")],
        "score": [given.get("rollouts"), "--prm", given.get("prm"), "--tokens"],
    }[stage]
    command = [sys.executable, "-m", "freeprm", stage, *map(str, arguments), "--out"]
    started = time.perf_counter()
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    seconds = time.perf_counter() - started
    expected, rng = files_of(tmp_path / "whole"), random.Random(stage)
    out = tmp_path / "killed"
    for _ in range(3):
        with subprocess.Popen([*command, str(out)]) as process:
            try:
                process.wait(timeout=rng.uniform(0.5, 1) * seconds)  # most of a command's time goes by before its work
            except subprocess.TimeoutExpired:
                process.kill()
        check_nothing_is_lost_or_changed(out, expected)
    subprocess.run([*command, str(out)], check=True)
    assert files_of(out) == expected
    check_manifest(out, tmp_path / "whole")
