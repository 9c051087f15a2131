"""Stages on a Ray cluster of two workers that these tests start: the same rows as here, and errors as our own."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
from dying import LAST_WORD, NOTES
from freeprm.errors import ConfigError, DataError, MissingExtraError, WorkerError
from freeprm.executors.ray import Ray
from freeprm.io.rows import write_json, write_rows
from freeprm.io.runs import RunFolder, read_manifest
from rounding import near

ray = pytest.importorskip("ray")
TWO = {"workers": 2, "cpus_per_worker": 1, "block": 8}


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def worker(fails_at: Any = None, error: Exception | None = None) -> Callable[[], Callable[[Sequence[Any]], Any]]:
    """A maker of workers that say which process they are in; local, so that Ray pickles it by value."""

    def make() -> Callable[[Sequence[Any]], Any]:
        def work(block: Sequence[Any]) -> Iterator[tuple[Any, int]]:
            for item in block:
                if error is not None and item == fails_at:
                    raise error
                if item == "die":
                    os._exit(1)
                yield item, os.getpid()

        return work

    return make


@pytest.mark.slow
def test_objects_arrive_and_return_as_they_are_from_processes_elsewhere(cluster: None):
    items: list[Any] = [b"\0 zeros \0", (1, (2.5, None)), {"deep": ["é", "\ud800"]}, float("1e-310"), DataError("x")]
    found = list(Ray(workers=2).run(worker(), [items[:2], items[2:4], items[4:]]))
    back = {repr(item) for item, _ in found}
    assert back == {repr(item) for item in items}
    assert len(found) == len(items)
    assert os.getpid() not in {pid for _, pid in found}


@pytest.mark.slow
def test_a_workers_error_comes_out_as_our_own(cluster: None):
    with pytest.raises(DataError, match="row 7: is bad"):
        list(Ray().run(worker(3, DataError("row 7: is bad")), [[1], [2, 3]]))


@pytest.mark.slow
def test_so_does_an_error_of_somebody_elses_or_of_making_the_worker(cluster: None):
    with pytest.raises(WorkerError, match="a worker failed: ZeroDivisionError: by zero"):
        list(Ray().run(worker(1, ZeroDivisionError("by zero")), [[1]]))

    def broken() -> Callable[[Sequence[Any]], Any]:
        raise DataError("no model here")

    with pytest.raises(DataError, match="no model here"):
        list(Ray().run(broken, [[1]]))


def test_options_that_make_no_sense_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch):
    for options, message in (({"workers": 0}, "workers: is 0"), ({"block": 0}, "block: is 0")):
        with pytest.raises(ConfigError, match=message):
            Ray(**options)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'freeprm\[ray\]'"):
        list(Ray().run(worker(), [[1]]))
    assert list(Ray().run(worker(), [])) == []


def without_scores(line: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if key not in ("step_scores", "reward")}


def scores(line: str) -> float:
    return float(json.loads(line)["reward"])


def test_a_stage_gives_the_same_rows_as_here_and_goes_on_where_it_was(cluster: None, tmp_path: Path):
    from freeprm.stages.grading import grade
    from freeprm.stages.sampling import sample

    problems = [{"problem_id": f"p{index}", "prompt": f"{index}?", "answer": str(index)} for index in range(6)]
    write_rows(tmp_path / "problems.jsonl", problems)
    counted = {"n_generated_tokens": 3, "n_prompt_tokens": 2}
    record = [
        {**problem, "sample_idx": index, "response": f"it is \\boxed{{{index}}}", **counted}
        for problem in problems
        for index in range(4)
    ]
    write_rows(tmp_path / "record.jsonl", record)
    options: dict[str, Any] = {"model": str(tmp_path / "record.jsonl"), "engine": "replay", "n": 4}
    source = tmp_path / "problems.jsonl"
    here = sample(source, out=tmp_path / "here", **options)
    there = tmp_path / "there"
    shutil.copytree(here.folder, there)  # as a driver killed after some of its blocks leaves it
    rows = (there / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    (there / "rollouts.jsonl").write_bytes(b"".join([*rows[16:], *rows[1:7]]) + b'{"torn')
    manifest = read_manifest(there) or {}
    write_json(there / "manifest.json", {**manifest, "status": "running"})
    with pytest.warns(UserWarning, match="cut off"):
        made = sample(source, out=there, executor="ray", executor_options=TWO, **options)
    assert made.counts == {**here.counts, "resumed": 14}
    assert (there / "rollouts.jsonl").read_bytes() == (here.folder / "rollouts.jsonl").read_bytes()
    assert made.cost.generated_tokens == here.cost.generated_tokens == 72

    by: dict[str, Any] = {
        "grader": "operator:eq",
        "workers": 1,
    }  # a user's own, so nothing is decided before a worker is asked
    ours = grade([here.folder], out=tmp_path / "graded-here", **by)
    theirs = grade([there], out=tmp_path / "graded-there", executor="ray", executor_options=TWO, **by)
    assert ours.metrics[0].value == 4 / 24  # of the answers 0 to 5, four are among the samples 0 to 3
    assert theirs.metrics == ours.metrics
    assert theirs.counts == ours.counts
    rows = [(made.folder / "rollouts.jsonl").read_bytes() for made in (ours, theirs)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_sampling_and_scoring_give_the_same_rows_as_here(cluster: None, tmp_path: Path):
    from freeprm.scorers.base import ScorerSource
    from freeprm.stages.sampling import sample
    from freeprm.stages.scoring import score

    options: dict[str, Any] = {"model": "solver:base", "n_problems": 6, "n": 4, "max_new_tokens": 120}
    here = sample("arithmetic", out=tmp_path / "here", workers=1, **options)
    there = sample("arithmetic", out=tmp_path / "there", workers=1, executor="ray", executor_options=TWO, **options)
    assert (there.folder / "rollouts.jsonl").read_bytes() == (here.folder / "rollouts.jsonl").read_bytes()
    assert there.counts == here.counts
    assert (there.cost.generated_tokens, there.cost.flops) == (here.cost.generated_tokens, here.cost.flops)

    prm = ScorerSource(source="solver:base", scorer="untrained")
    rewards = ["reference-only"]
    ours = score([here.folder], prm=prm, out=tmp_path / "scored-here", rewards=rewards)
    theirs = score(
        [here.folder], prm=prm, out=tmp_path / "scored-there", rewards=rewards, executor="ray", executor_options=TWO
    )
    rows = [(made.folder / "reference-only.jsonl").read_text().splitlines() for made in (ours, theirs)]
    assert [without_scores(row) for row in rows[0]] == [without_scores(row) for row in rows[1]]
    assert [scores(row) for row in rows[0]] == near([scores(row) for row in rows[1]])
    assert theirs.counts == ours.counts
    manifest = read_manifest(theirs.folder)
    assert manifest is not None
    assert manifest["cost"]["scored_tokens"] == ours.cost.scored_tokens > 0
    with pytest.raises(ConfigError, match="ScorerSource"):
        score([here.folder], prm=prm.load(), out=tmp_path / "no", rewards=rewards, executor="ray")


@pytest.mark.slow
def test_the_share_of_a_killed_worker_is_scored_once_more_and_no_row_comes_twice(cluster: None, tmp_path: Path):
    from freeprm.scorers.base import ScorerSource
    from freeprm.stages.scoring import score

    model = tiny.save(tmp_path / "model")
    rows = [
        {"problem_id": f"p{index}", "sample_idx": 0, "prompt": "?", "response": "a" * (1 + index * 7 % 40)}
        for index in range(64)
    ]
    rows[31]["response"] = LAST_WORD
    write_rows(tmp_path / "rollouts.jsonl", rows)
    here = Path(__file__).parents[1]
    options = {**TWO, "runtime_env": {"env_vars": {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}}}
    prm = ScorerSource(source=str(model), scorer="dying:Dying")
    appended: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        append = RunFolder.append
        patch.setattr(RunFolder, "append", lambda run, name, rows: appended.extend(rows) or append(run, name, rows))
        there = score([tmp_path / "rollouts.jsonl"], prm=prm, out=tmp_path / "there", executor="ray",
                      executor_options=options)  # fmt: skip
    assert (model / "dead").exists()
    assert sorted(row["problem_id"] for row in appended) == sorted(row["problem_id"] for row in rows)
    notes = Counter((model / NOTES).read_text().splitlines())
    begun = {what: count for what, count in notes.items() if what.startswith("begun")}
    assert {count for what, count in notes.items() if what.startswith("finished")} == {1}
    assert sorted(begun.values())[-2:] == [1, 2]  # the share of the killed worker alone
    ours = score([tmp_path / "rollouts.jsonl"], prm=prm, out=tmp_path / "here", executor="local")
    blocks = score([tmp_path / "rollouts.jsonl"], prm=prm, out=tmp_path / "again", executor="ray",
                   executor_options={**options, "workers": 1})  # fmt: skip
    written = [(made.folder / "dying.jsonl").read_bytes() for made in (there, ours, blocks)]
    assert written[0] == written[1] == written[2]
    assert there.counts == ours.counts == blocks.counts == {"scored": 64}


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again_until_that_is_too_often(cluster: None):
    with pytest.raises(WorkerError, match="a worker was lost 2 times on one block"):
        list(Ray(restarts=1).run(worker(), [["die"]]))
    assert len(list(Ray().run(worker(), [[1], [2]]))) == 2  # the cluster is there for the next run


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_where_it_was(tmp_path: Path):
    command = [
        sys.executable, "-m", "freeprm", "sample", "arithmetic", "--model", "solver:base", "--n-problems", "40",
        "--n", "8", "--workers", "1",
    ]  # fmt: skip
    on_ray = ["--executor", "ray", "--executor-option", "workers=2", "--executor-option", "block=8"]
    out = tmp_path / "killed"
    with subprocess.Popen([*command, *on_ray, "--out", str(out)], start_new_session=True) as process:
        rows = out / "rollouts.jsonl"
        while not (rows.exists() and rows.stat().st_size):
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    n_before = rows.read_bytes().count(b"\n")
    assert 0 < n_before < 320
    for arguments in ([*on_ray, "--out", str(out)], ["--out", str(tmp_path / "whole")]):
        subprocess.run([*command, *arguments], check=True)
    assert rows.read_bytes() == (tmp_path / "whole" / "rollouts.jsonl").read_bytes()
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["counts"]["resumed"] == n_before
    assert len(manifest["sessions"]) == 2
