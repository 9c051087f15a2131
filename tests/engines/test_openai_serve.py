"""The engine against `transformers serve` on loopback, with the shipped solver: a server not of this project."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from freeprm.assets import solver_path
from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.openai import OpenAIEngine
from freeprm.errors import ConfigError, ModelError
from freeprm.io.files import read_rows
from freeprm.scorers.base import ScorerSource, Servers, rollouts_of
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample

pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
pytest.importorskip("uvicorn", reason="transformers serve needs transformers[serving]")

TEMPLATE = "<|user|>{prompt}<|end|><|assistant|>"
"""What the solver's chat template makes of a question."""
TASK = {"split": "test", "n_problems": 20, "temperature": 0.8, "max_new_tokens": 160}
GREEDY = SamplingParams(temperature=0)
PROMPT = "Ivy has 48 books. Kim has 8 fewer books than Ivy. How many books does Kim have?"
_READY_SECONDS = 300


class Server(NamedTuple):
    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The solver as shipped, but for one line: without it, `transformers serve` ignores the temperature."""
    folder = tmp_path_factory.mktemp("served") / "solver"
    shutil.copytree(solver_path("base"), folder)
    config = folder / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_sample": True}))
    return folder


@pytest.fixture(scope="module")
def server(solver: Path) -> Iterator[Server]:
    """Ready."""
    with serving(solver) as started:
        yield started


@contextmanager
def serving(solver: Path) -> Iterator[Server]:
    started = start(solver)
    try:
        wait_until_ready(started)
        yield started
    finally:
        started.kill()


def start(solver: Path) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "transformers.cli.transformers", "serve", str(solver), "--host", "127.0.0.1", "--port", str(port)]
    log = solver.parent / f"{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command, "--device", "cpu"], stdout=out, stderr=out, env={**os.environ, "no_proxy": "*"}
        )  # fmt: skip
    return Server(process, f"http://127.0.0.1:{port}/v1", log)


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(server.url.replace("/v1", "/health"), timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"transformers serve did not start:\n{server.log.read_text()[-3000:]}")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(folder / "rollouts.jsonl")]


def draw(
    server: Server, solver: Path, *, n: int = 1, done: frozenset[int] = frozenset(),
    params: SamplingParams = GREEDY, **options: Any,
) -> list[Sampled]:  # fmt: skip
    engine = OpenAIEngine(model=str(solver), base_url=server.url, **{"api": "chat", **options})
    request = Request(problem_id="p", prompt=PROMPT, sample_idxs=tuple(range(n)), done=done)
    found = engine.sample([request], params=params)
    return sorted(found, key=lambda sampled: sampled.sample_idx)


def test_it_gives_no_log_probabilities_of_what_it_is_sent_and_so_cannot_score(server, solver):
    """transformers 5.23 takes no token ids and no `prompt_logprobs`, and ignores `echo` and `logprobs`."""
    servers = Servers(policy_url=server.url, policy_name=str(solver))
    source = ScorerSource(source=str(solver), scorer="untrained", servers=servers)
    with pytest.raises(ConfigError, match=r"expected one of vllm, sglang\. .*such as transformers serve"):
        source.load()
    scorer = replace(source, servers=replace(servers, api="vllm")).load()
    with pytest.raises(ModelError, match=r"sample 0: .* refuses it \(422: Unexpected fields in the request"):
        scorer.score_rollouts(rollouts_of(PROMPT, ["It is 40."]))


@pytest.mark.slow
def test_the_server_solves_as_often_as_the_solver_does_here(server, solver, tmp_path):
    there = sample(
        "arithmetic", model=str(solver), out=tmp_path / "there", engine="openai",
        engine_options={"base_url": server.url, "concurrency": 4}, **{**TASK, "n": 8},
    )  # fmt: skip
    assert there.counts["samples"] == 160
    assert {row["stop_reason"] for row in rows(tmp_path / "there")} <= {"end", "length"}
    assert all(0 < row["n_generated_tokens"] <= 160 for row in rows(tmp_path / "there"))
    sample("arithmetic", model="solver:base", out=tmp_path / "here", **{**TASK, "n": 64})
    share = {where: graded_share(tmp_path / where, tmp_path / f"{where}-graded") for where in ("there", "here")}
    # Two means over the same problems: their difference has a standard deviation of sqrt(1/4 (1/160 + 1/1280)) = 0.042
    # at most; 4 of them are passed in 1 of 15,000 runs where both draw from the same distribution.
    assert abs(share["there"] - share["here"]) < 0.168
    prompt_tokens = {where: {r["problem_id"]: r["n_prompt_tokens"] for r in rows(tmp_path / where)} for where in share}
    assert prompt_tokens["there"] == prompt_tokens["here"]  # the same prompt, token for token


def graded_share(rollouts: Path, out: Path) -> float:
    grade([rollouts], out=out)
    labels = [row["correct"] for _, row in read_rows(out / "rollouts.jsonl")]
    return sum(map(bool, labels)) / len(labels)


def test_a_seed_gives_the_same_samples_where_requests_come_one_by_one(server, solver):
    params = SamplingParams(temperature=1.0, max_new_tokens=160)
    first = draw(server, solver, n=4, params=params, concurrency=1)
    assert len({sampled.text for sampled in first}) > 1
    assert all(re.match(r"Step 1: (\w+ )*Ivy 48\.", sampled.text) for sampled in first)
    assert all(sampled.stop_reason == "end" for sampled in first)
    rest = draw(server, solver, n=4, done=frozenset({0, 1}), params=params, concurrency=1)
    assert rest == first[2:]
    # The same prompt, written out by us and not by the server's chat template.
    completions = {"api": "completions", "template": TEMPLATE}
    assert draw(server, solver, n=4, params=params, concurrency=1, **completions) == first


def test_a_response_ends_before_a_stop_text_and_at_the_limit(server, solver):
    (whole,) = draw(server, solver, n=1, params=replace(GREEDY, max_new_tokens=160))
    (stopped,) = draw(server, solver, n=1, params=replace(GREEDY, stop=("\nStep 2", "zzz")))
    (cut,) = draw(server, solver, n=1, params=replace(GREEDY, max_new_tokens=5))
    assert (whole.stop_reason, whole.truncated) == ("end", False)
    assert (stopped.text, stopped.stop_reason) == (whole.text.partition("\nStep 2")[0], "stop")
    assert (cut.stop_reason, cut.truncated, cut.n_generated_tokens) == ("length", True, 5)
    assert whole.text.startswith(cut.text)


def test_a_server_that_gives_one_choice_is_asked_for_each(server, solver):
    with pytest.warns(UserWarning, match="gave 1 of 3 choices"):
        found = draw(server, solver, n=3, samples_per_call=3, params=replace(GREEDY, max_new_tokens=10))
    assert [sampled.sample_idx for sampled in found] == [0, 1, 2]


def test_a_field_that_the_server_does_not_know_is_named(server, solver):
    with pytest.raises(ModelError, match=r"'p': .*422: Unexpected fields in the request: \{'top_k'\}.*extra_body.NAME"):
        draw(server, solver, extra_body={"top_k": 5})


def test_another_model_is_refused_in_the_servers_words(server, solver):
    with pytest.raises(ModelError, match="Server is pinned to"):
        draw(server, solver.parent)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*sent again")
def test_a_run_whose_server_is_killed_goes_on_at_another_address(server, solver, tmp_path):
    out = tmp_path / "run"

    def run(server: Server) -> None:
        sample(
            "arithmetic", model=str(solver), out=out, engine="openai", split="test", n_problems=10, n=4,
            max_new_tokens=24, engine_options={"base_url": server.url, "api": "chat", "max_retries": 1},
        )  # fmt: skip

    with serving(solver) as another:
        killer = threading.Thread(target=kill_when, args=(another, lambda: len(lines(out)) >= 3))
        killer.start()
        with pytest.raises(ModelError, match="the same command goes on from there") as raised:
            run(another)
        killer.join()
    kept = lines(out)
    assert 3 <= len(kept) < 40
    told = re.search(r"(\d+) of 40 samples are kept", str(raised.value))
    assert told
    assert len(kept) == int(told[1])  # no finished sample is lost
    run(server)
    after = lines(out)
    assert set(kept) < set(after)
    assert len(after) == 40
    assert len({(row["problem_id"], row["sample_idx"]) for row in map(json.loads, after)}) == 40
    assert json.loads((out / "manifest.json").read_text())["counts"]["resumed"] == len(kept)


def kill_when(server: Server, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    server.kill()


def lines(folder: Path) -> list[bytes]:
    file = folder / "rollouts.jsonl"
    return [line for line in file.read_bytes().split(b"\n") if line] if file.exists() else []
