"""Stages that are killed at random moments, again and again, end in the records of an uninterrupted run.

Three ways to die: SIGKILL after some time, SIGKILL just before the n-th change to a file of the folder, and a signal
in the middle of a write, which leaves a torn row.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny
from costs import timeless
from fork_server import KILLED_BY
from freeprm.io.manifest import read_cost
from freeprm.io.rows import write_rows
from freeprm.io.runs import read_manifest
from freeprm.models.loading import load_backbone, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config

COMMANDS = ("sample", "grade", "score")
"""Stages that append rows, of which one may be torn."""
STAGES = (*COMMANDS, "select", "evaluate", "train")
MOMENTS = ({"share of events": 0.3}, {"share of bytes": 0.6}, {"share of bytes": 0.97}, {"share of seconds": 0.5})
"""When a run is killed: at one of each kind of moment, as shares of the uninterrupted run. Seconds come last, as on a
busy machine a run may be finished by then."""
KILLS = {"sample": 16, "grade": 10, "score": 12, "select": 6, "evaluate": 6, "train": 14}
"""At random moments: 64 in all."""


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
    return {
        "sample": {"model": str(base), "problems": str(folder / "problems.jsonl")},
        "grade": {"rollouts": str(folder / "rollouts.jsonl")},
        "score": {"prm": str(policy), "rollouts": str(folder / "rollouts.jsonl")},
        "select": {"scores": str(folder / "scores.jsonl")},
        "evaluate": {"scores": str(folder / "scores.jsonl")},
        "train": {"model": str(base), "rollouts": str(folder / "graded.jsonl")},
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
            "share of events": {"event": 1 + int(share * self.uninterrupted["events"])},
            "share of bytes": {"bytes": int(share * size)},
        }[kind]
        status = self.fork_server.run(self.stage, out, point, **self.arguments)["status"]
        check_nothing_is_lost_or_changed(out, self.expected)
        assert status == 0 or -status in KILLED_BY
        return status != 0

    def finish(self, out: Path) -> int:
        """Go on to the end; the number of sessions that found a torn row."""
        assert self.fork_server.run(self.stage, out, **self.arguments)["status"] == 0
        assert files_of(out) == self.expected
        return check_manifest(out, self.folder / "whole")


@pytest.fixture
def life(stage: str, fork_server: ForkServer, data, tmp_path: Path) -> Life:
    uninterrupted = fork_server.run(stage, tmp_path / "whole", **data[stage])
    assert uninterrupted["status"] == 0
    return Life(fork_server, stage, data[stage], tmp_path, uninterrupted, files_of(tmp_path / "whole"))


def files_of(folder: Path) -> dict[str, bytes]:
    """The contents of rows files, metrics and models."""
    names = ("*.jsonl", "metrics.json", "model.safetensors", "reward.json", "log.json")
    return {file.name: _timeless(file) for name in names for file in folder.glob(name)}


def _timeless(file: Path) -> bytes:
    """What a file holds, but for the times in a training log."""
    if file.name != "log.json":
        return file.read_bytes()
    entries = [{key: value for key, value in row.items() if "runtime" not in key and "_per_second" not in key}
               for row in json.loads(file.read_text())]  # fmt: skip
    return json.dumps(entries, sort_keys=True).encode()


def check_nothing_is_lost_or_changed(out: Path, expected: dict[str, bytes]) -> None:
    """Whole rows on disk are rows of the uninterrupted run, each once."""
    for file in out.glob("*.jsonl"):
        rows = file.read_bytes().split(b"\n")[:-1]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(expected[file.name].split(b"\n"))


def check_manifest(out: Path, whole: Path) -> int:
    """The manifest counts what the uninterrupted run's does; the number of sessions that found a torn row."""
    ours, theirs = read_manifest(out), read_manifest(whole)
    assert ours is not None
    assert theirs is not None
    assert ours["status"] == "complete"
    for key in ("settings", "counts"):
        ours[key], theirs[key] = (
            {name: value for name, value in one[key].items() if name != "resumed"} for one in (ours, theirs)
        )
        assert ours[key] == theirs[key]
    assert timeless(read_cost(ours["cost"])) == timeless(read_cost(theirs["cost"]))
    assert not list(out.glob("*.partial"))
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
