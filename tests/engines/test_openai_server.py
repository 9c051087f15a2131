"""What the engine does with a server that is busy, broken, gone or unwilling; rates, in real time."""

import asyncio
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from freeprm.engines.base import Request
from freeprm.engines.openai import OpenAIEngine
from freeprm.engines.openai.server import Pace
from freeprm.errors import MissingExtraError, ModelError
from freeprm.stages.sampling import sample
from freeprm.types import Problem
from openai_stub import PARAMS, Answer, chat, draw, echo
from patience import PATIENCE

KEY = "sk-a-secret"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ((429, {"error": {"message": "slow down"}}, {"retry-after": "0.2"}), "429 Too Many Requests"),
        ((503, {"error": "loading"}, {"retry-after": formatdate(0, usegmt=True)}), "503 Service Unavailable"),
        ((500, b"Internal Server Error"), "500 Internal Server Error"),
        ((200, b"<html>bad gateway</html>"), "an answer that is not JSON"),
        ((200, {"choices": []}), "an answer without choices"),
        ((200, {"detail": "model is loading"}), "an error instead of an answer"),
        ((200, {"error": {"message": "busy", "code": 429}}), "an error instead of an answer"),
        ((200, ["odd"]), "an answer without choices"),
        ((200, chat(finish="abort")), "a response that ended by 'abort'"),
    ],
)
def test_what_may_pass_is_tried_again_with_the_same_seed(serve, fault: Answer, told: str):
    stub = serve(lambda path, body, number: fault if number < 2 else (200, chat()))
    with pytest.warns(UserWarning, match="sent again") as warned:
        found = draw(stub)
    first, last = (str(item.message) for item in warned)
    assert first == f"{stub.url}: {told}; the request is sent again"
    assert last == f"2 requests were sent again: {told} (2)"
    assert found["p0", 0].text == "fine"
    assert len({body["seed"] for body in stub.bodies}) == 1
    assert len(stub.bodies) == 3


def test_an_error_under_a_status_of_success_is_told_in_the_servers_words(serve):
    said = {"error": {"message": "context length exceeded", "code": 400}}
    stub = serve(lambda path, body, number: (200, said))
    with pytest.raises(ModelError, match=r"'p0': .* refuses the request \(400: context length exceeded"):
        draw(stub)
    assert len(stub.bodies) == 1  # final, so not asked again


def test_all_requests_wait_as_long_as_the_server_asks(serve):
    times: list[float] = []

    def busy(path: str, body: dict[str, Any], number: int) -> Answer:
        times.append(time.monotonic())
        return (429, {}, {"retry-after": "0.4"}) if number == 0 else (200, chat())

    with pytest.warns(UserWarning, match="429"):
        draw(serve(busy), n=3, concurrency=1)
    assert times[1] - times[0] >= 0.4


@pytest.mark.filterwarnings("ignore:.*sent again")
def test_a_server_that_stays_away_ends_the_run_and_says_what_is_kept(serve):
    stub = serve(lambda path, body, number: (200, chat()) if number < 5 else (503, {"error": "overloaded"}))
    engine = OpenAIEngine(model="m", base_url=stub.url, api="chat", concurrency=2, max_retries=3)
    request = Request(problem_id="p", prompt="?", sample_idxs=tuple(range(10)), done=frozenset({8, 9}))
    samples = engine.sample([request], params=PARAMS)
    assert len([next(samples) for _ in range(5)]) == 5
    told = r"503 Service Unavailable: overloaded, after 4 attempts for problem 'p'\. 7 of 10 samples are kept"
    with pytest.raises(ModelError, match=f"{told}.*the same command goes on from there"):
        next(samples)


@pytest.mark.filterwarnings("ignore:.*sent again")
def test_a_run_keeps_every_sample_that_was_finished_when_its_server_was_lost(serve, tmp_path: Path):
    stub = serve(lambda path, body, number: (200, chat()) if number < 5 else (503, {"error": "overloaded"}))
    options = {"base_url": stub.url, "api": "chat", "concurrency": 2, "max_retries": 1}
    problems = [Problem(problem_id="p", prompt="?")]
    with pytest.raises(ModelError, match="5 of 10 samples are kept"):
        sample(problems, model="m", engine="openai", engine_options=options, out=tmp_path, n=10)
    assert len((tmp_path / "rollouts.jsonl").read_text().splitlines()) == 5
    again = {**options, "base_url": serve(echo).url}
    made = sample(problems, model="m", engine="openai", engine_options=again, out=tmp_path, n=10)
    assert made.counts == {"problems": 1, "samples": 10, "resumed": 5}


@pytest.mark.filterwarnings("ignore:.*sent again")
def test_a_server_that_never_answers_is_not_waited_for_ten_times(serve):
    gate = threading.Event()

    def hang(path: str, body: dict[str, Any], number: int) -> Answer:
        gate.wait(PATIENCE)
        return 200, chat()

    stub = serve(hang)
    with pytest.raises(ModelError, match=r"no answer within 0.1 seconds, after 3 attempts .* 0 of 1 samples"):
        draw(stub, timeout_seconds=0.1)
    gate.set()


def test_a_wait_of_hours_ends_the_run(serve):
    with pytest.raises(ModelError, match="asks to wait 7200 seconds, after 1 attempts"):
        draw(serve(lambda path, body, number: (429, {}, {"retry-after": "7200"})))


def test_no_server_is_told_at_once_with_how_to_start_one():
    engine = OpenAIEngine(model="m", base_url="http://user:word@127.0.0.1:9/v1?key=word")
    started = time.monotonic()
    with pytest.raises(
        ModelError, match=r"no server answers there .*Start one, e.g. with `vllm serve MODEL`"
    ) as raised:
        list(engine.sample([Request(problem_id="p", prompt="?", sample_idxs=(0,))], params=PARAMS))
    assert time.monotonic() - started < PATIENCE
    assert "word" not in str(raised.value)


def test_without_its_client_the_extra_that_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    engine = OpenAIEngine(model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(MissingExtraError, match=r"a server \(--engine.*pip install 'freeprm\[openai\]'"):
        list(engine.sample([Request(problem_id="p", prompt="?", sample_idxs=(0,))], params=PARAMS))


@pytest.mark.parametrize("where", ["models", "request"])
def test_a_refused_key_is_named_by_its_variable_and_never_shown(serve, monkeypatch, where: str):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    refused: Answer = (401, {"error": {"message": f"Incorrect API key provided: {KEY}."}})
    stub = serve(lambda *_: refused, **({"models": refused} if where == "models" else {}))
    with pytest.raises(
        ModelError, match=r"refuses the key in the environment variable MY_KEY \(401: .*\*\*\*"
    ) as raised:
        draw(stub, api_key_env="MY_KEY")
    assert KEY not in str(raised.value)
    assert KEY not in repr(OpenAIEngine(model="m", api_key_env="MY_KEY"))
    assert stub.keys == ([] if where == "models" else [f"Bearer {KEY}"])


def test_a_missing_key_is_asked_for(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    stub = serve(lambda *_: (401, {"error": "Unauthorized"}))
    with pytest.raises(ModelError, match="wants a key, and there is none in the environment variable OPENAI_API_KEY"):
        draw(stub)
    assert stub.keys == [None]


def test_an_unknown_model_is_told_with_those_that_there_are(serve):
    stub = serve(lambda *_: (404, {"error": {"message": "The model `m` does not exist."}}))
    with pytest.raises(ModelError, match=r"no model 'm', or no such address .*does not exist.*It has m, other;"):
        draw(stub)


def test_a_prompt_that_is_refused_is_named(serve):
    words = "This model's maximum context length is 4096 tokens."
    stub = serve(
        lambda path, body, number: (400, {"error": {"message": words}}) if "1?" in str(body) else (200, chat())
    )
    with pytest.raises(ModelError, match=r"problem 'p1': .* refuses the request .*maximum context length"):
        draw(stub, problems=2)


def test_an_empty_account_is_not_asked_again(serve):
    stub = serve(lambda *_: (429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}))
    with pytest.raises(ModelError, match=r"refuses all requests \(429: You exceeded your quota"):
        draw(stub)
    assert len(stub.bodies) == 1


def test_a_withheld_response_is_drawn_again_with_another_seed(serve):
    stub = serve(lambda path, body, number: (200, chat(finish="content_filter" if number == 0 else "stop")))
    with pytest.warns(UserWarning, match="withheld"):
        draw(stub)
    assert len({body["seed"] for body in stub.bodies}) == 2
    always = serve(lambda *_: (200, chat(finish="content_filter")))
    withheld = pytest.warns(UserWarning, match="withheld")
    with withheld, pytest.raises(ModelError, match=r"'p0': .*withholds .*3 draws.*leave the problem"):
        draw(always)


def seconds_for(pace_per_minute: float | None, amounts: list[float], *, pause: float = 0.0, back: float = 0.0) -> float:
    async def take_all() -> float:
        pace = Pace(pace_per_minute)
        started = time.monotonic()
        pace.pause(pause)
        for number, amount in enumerate(amounts):
            await pace.turn(amount)
            if number == 0:
                pace.correct(-back)
        return time.monotonic() - started

    return asyncio.run(take_all())


def test_what_one_takes_the_next_ones_wait_for():
    # 600 a minute are 0.1 s each: the last of 1 + 2 + 1 begins after the three before it.
    assert 0.3 <= seconds_for(600, [1, 2, 1]) < PATIENCE


def test_what_was_not_used_is_given_back():
    assert seconds_for(600, [3000, 1], back=2999) < PATIENCE  # and not for five minutes


def test_no_limit_never_waits_but_for_a_pause():
    assert seconds_for(None, [1000] * 50) < PATIENCE
    assert 0.3 <= seconds_for(None, [1] * 5, pause=0.3) < PATIENCE


def test_waiting_together_spends_no_turn_twice():
    async def at_once() -> float:
        pace = Pace(1200)
        started = time.monotonic()
        await asyncio.gather(*(pace.turn(1) for _ in range(7)))
        return time.monotonic() - started

    assert 6 * 0.05 <= asyncio.run(at_once()) < PATIENCE
