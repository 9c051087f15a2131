"""`freeprm serve` as it is started and ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from freeprm.errors import ConfigError, ModelError, ServerError
from freeprm.serving.client import Client
from freeprm.serving.running import serve
from freeprm.settings import ServeSettings
from patience import PATIENCE, wait_until

ASKED = {"prompt": "the sum of 3 and 4?", "responses": ["it is 7", "it is 8"]}


@contextmanager
def started(*arguments: str, port: int = 0, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server at a port, or a free one, when it is ready, and its address."""
    command = [sys.executable, "-m", "freeprm", "serve", *arguments, "--port", str(port)]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "FREEPRM_ALLOCATOR": "system", **environment}
    )
    assert server.stderr
    timer = threading.Timer(PATIENCE, server.kill)
    timer.start()
    try:
        yield server, _event(server.stderr, "ready")["url"]
    finally:
        timer.cancel()
        server.kill()
        server.wait()


def _event(lines: IO[str], name: str) -> dict[str, str]:
    for line in lines:
        found: dict[str, str] = json.loads(line)
        if found["event"] == name:
            return found
    raise AssertionError(f"the server ended without {name}")


def _ask(url: str, *, key: str = "") -> dict[str, object]:
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{url}/score", json.dumps(ASKED).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        found: dict[str, object] = json.load(answer)
        return found


@pytest.mark.slow
def test_a_server_answers_logs_in_json_takes_its_key_from_the_environment_and_ends_with_0(prm: Path):
    with started(str(prm), FREEPRM_API_KEY="k") as (server, url):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _ask(url)
        assert len(_ask(url, key="k")["results"]) == 2  # type: ignore[arg-type]
        server.send_signal(signal.SIGTERM)
        assert server.stderr
        assert _event(server.stderr, "ended")["level"] == "info"
        assert server.wait(PATIENCE) == 0


@pytest.mark.slow
def test_what_was_accepted_is_answered_after_the_signal(prm: Path):
    with started(str(prm), "--max-batch", "1") as (server, url):
        answers: list[object] = []
        askers = [threading.Thread(target=lambda: answers.append(_ask(url))) for _ in range(8)]
        for asker in askers:
            asker.start()
        # The last one asked waits behind the others' batches; the signal comes while they are under way.
        while not answers:
            askers[0].join(0.001)
        server.send_signal(signal.SIGTERM)
        for asker in askers:
            asker.join(PATIENCE)
        assert server.wait(PATIENCE) == 0
        assert len(answers) == len(askers)


@pytest.mark.slow
def test_a_server_killed_among_requests_gives_the_same_numbers_when_it_is_started_again(prm: Path):
    files = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in prm.iterdir()}
    prompts = [f"the sum of {number} and 4?" for number in range(60)]
    with started(str(prm), "--max-batch", "1") as (server, url), Client(url) as client:
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(client.score, prompt, ["it is 7", "it is 8"]) for prompt in prompts]
            wait_until(lambda: sum(one.done() for one in asked) > 5)
            server.kill()
        failed = [error for one in asked if (error := one.exception())]
        answered = {prompt: one.result() for prompt, one in zip(prompts, asked, strict=True) if not one.exception()}
        assert {type(error) for error in failed} == {ServerError}
        assert all("the connection broke" in str(error) or "no server answers there" in str(error) for error in failed)
        assert 5 < len(answered) < len(prompts)
        with started(str(prm), "--max-batch", "1", port=int(url.rpartition(":")[2])) as (_, again):
            assert again == url
            assert {prompt: client.score(prompt, ["it is 7", "it is 8"]) for prompt in answered} == answered
    assert {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in prm.iterdir()} == files


def test_a_port_in_use_is_told_before_a_model_is_loaded(prm: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1 port {port}: .*choose others with --host"):
            serve(ServeSettings(prm=str(prm), port=port))


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({}, ConfigError, "give one of --prm"),
        ({"prm": "no/such/folder"}, ModelError, "no/such/folder"),
        ({"untrained": "solver:base", "port": 99_999}, ConfigError, "--port: is 99999; expected 0"),
        ({"untrained": "solver:base", "max_batch": 0}, ConfigError, "--max-batch: is 0; expected more than 0"),
        ({"untrained": "solver:base", "rewards": ["with"]}, ConfigError, "with"),
    ],
)
def test_bad_settings_are_told_at_once(settings: dict[str, object], error: type[Exception], told: str):
    with pytest.raises(error, match=told):
        serve(ServeSettings(**{"port": 0, **settings}))  # type: ignore[arg-type]


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error(prm: Path, tmp_path: Path):
    broken = tmp_path / "prm"
    broken.mkdir()
    for file in prm.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="prm"):
        serve(ServeSettings(prm=str(broken), port=0))
