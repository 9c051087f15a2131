"""The engine against a small server of ours; `test_openai_serve.py` has a real one."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from freeprm.engines.base import Request, SamplingParams
from freeprm.engines.openai import OpenAIEngine
from freeprm.engines.openai.engine import streamed
from freeprm.errors import ConfigError, FreePRMError, ModelError
from freeprm.io.config import build
from freeprm.io.plugins import load
from freeprm.models.prompts import PLAIN_SEPARATOR
from openai_stub import PARAMS, Answer, chat, draw, echo
from patience import PATIENCE

KEY = "sk-a-secret"


def test_every_sample_comes_once_from_a_request_with_a_seed_of_its_own(serve):
    stub = serve(echo)
    found = draw(stub, problems=3, n=4)
    assert set(found) == {(f"p{problem}", index) for problem in range(3) for index in range(4)}
    assert len({body["seed"] for body in stub.bodies}) == 12
    assert all("n" not in body and body["temperature"] == 1.0 and body["max_tokens"] == 20 for body in stub.bodies)
    sampled = found["p0", 0]
    assert (sampled.stop_reason, sampled.n_prompt_tokens, sampled.n_generated_tokens) == ("end", 7, 5)
    assert sampled.token_ids is None


def test_a_resumed_run_asks_for_what_is_missing_with_the_same_seeds(serve):
    whole = draw(serve(echo), problems=2, n=4)
    stub = serve(echo)
    rest = draw(stub, problems=2, n=4, done=frozenset({0, 2}))
    assert rest == {key: sampled for key, sampled in whole.items() if key[1] not in (0, 2)}
    assert len(stub.bodies) == 4
    assert draw(serve(echo), n=1, params=SamplingParams(seed=1)) != draw(serve(echo), n=1)


def test_several_samples_share_a_request_where_asked_for(serve):
    stub = serve(lambda path, body, number: (200, chat(n=body.get("n", 1))))
    found = draw(stub, n=10, samples_per_call=4)
    assert sorted(body.get("n", 1) for body in stub.bodies) == [2, 4, 4]
    assert len(found) == 10
    assert {sampled.n_prompt_tokens for sampled in found.values()} == {7}
    assert {sampled.n_generated_tokens for sampled in found.values()} == {None}  # the server gives their sum only


def test_a_server_that_ignores_n_is_asked_for_single_samples(serve):
    stub = serve(echo)
    with pytest.warns(UserWarning, match=r"gave 1 of 4 choices asked for; .*samples_per_call=1"):
        found = draw(stub, n=8, samples_per_call=4, concurrency=1)
    assert len(found) == 8
    assert [body.get("n", 1) for body in stub.bodies] == [4] + [1] * 7


def test_a_server_that_refuses_n_is_asked_for_single_samples(serve):
    def one_only(path: str, body: dict[str, Any], number: int) -> Answer:
        if body.get("n", 1) > 1:
            return 500, {"error": {"code": 500, "message": "Only one completion choice is allowed"}}  # llama.cpp
        return 200, chat()

    with pytest.warns(UserWarning, match=r"gave 0 of 3 choices asked for; .*samples_per_call=1"):
        assert len(draw(serve(one_only), n=3, samples_per_call=3)) == 3


def test_no_more_requests_are_under_way_than_allowed(serve):
    three = threading.Barrier(3)

    def together(path: str, body: dict[str, Any], number: int) -> Answer:
        three.wait(PATIENCE)  # for two others that are under way
        return 200, chat()

    stub = serve(together)
    draw(stub, problems=3, n=4, concurrency=3)
    assert stub.most_at_once == 3


def test_requests_keep_to_a_rate(serve):
    started = time.monotonic()
    draw(serve(echo), n=6, requests_per_minute=1200)
    assert time.monotonic() - started >= 5 * 60 / 1200  # the first one goes at once


def test_tokens_keep_to_a_rate(serve):
    started = time.monotonic()
    draw(serve(echo), n=6, tokens_per_minute=7200, concurrency=1)
    # 12 tokens each, 0.1 s at this rate; the first is charged with more than that until its answer is there.
    assert 5 * 0.1 <= time.monotonic() - started < PATIENCE


def test_samples_come_as_they_are_finished(serve):
    gate = threading.Event()

    def one_waits(path: str, body: dict[str, Any], number: int) -> Answer:
        if number == 0:
            assert gate.wait(PATIENCE)
        return 200, chat()

    engine = OpenAIEngine(model="m", base_url=serve(one_waits).url, api="chat", concurrency=2)
    samples = engine.sample([Request(problem_id="p", prompt="?", sample_idxs=tuple(range(5)))], params=PARAMS)
    assert len([next(samples) for _ in range(4)]) == 4
    gate.set()
    assert len(list(samples)) == 1


def test_closing_cancels_what_is_under_way_and_leaves_no_thread(serve):
    gate, answered = threading.Event(), []

    def all_but_one_wait(path: str, body: dict[str, Any], number: int) -> Answer:
        if number:
            gate.wait(PATIENCE)
            answered.append(number)
        return 200, chat()

    stub = serve(all_but_one_wait)
    engine = OpenAIEngine(model="m", base_url=stub.url, api="chat", concurrency=4)
    samples = engine.sample([Request(problem_id="p", prompt="?", sample_idxs=tuple(range(9)))], params=PARAMS)
    next(samples)
    samples.close()
    assert not answered  # none was waited for
    assert "freeprm-openai" not in {thread.name for thread in threading.enumerate()}
    assert len(stub.bodies) <= 5
    gate.set()


def test_extra_fields_are_sent_and_null_takes_one_of_ours_away(serve):
    stub = serve(lambda *_: (200, chat()))
    draw(stub, extra_body={"top_k": 20, "max_tokens": None, "max_completion_tokens": 9, "seed": None})
    (body,) = stub.bodies
    assert (body["top_k"], body["max_completion_tokens"]) == (20, 9)
    assert not {"max_tokens", "seed"} & set(body)


def test_conversations_are_sent_as_they_are(serve):
    stub = serve(lambda *_: (200, chat()))
    talk = ({"role": "system", "content": "Short."}, {"role": "user", "content": "2 + 2?"})
    engine = OpenAIEngine(model="m", base_url=stub.url)
    list(engine.sample([Request(problem_id="p", prompt=talk, sample_idxs=(0,))], params=PARAMS))
    assert [body["messages"] for body in stub.bodies] == [list(talk)]  # nothing to find out about the api
    plain = OpenAIEngine(model="m", base_url=stub.url, api="completions")
    with pytest.raises(ModelError, match="'p': its prompt is a conversation; completions take plain texts"):
        list(plain.sample([Request(problem_id="p", prompt=talk, sample_idxs=(0,))], params=PARAMS))


@pytest.mark.parametrize(
    "lacking",
    [
        (404, {"detail": "Not Found"}),
        (400, {"error": {"message": "you must provide a chat template if the tokenizer does not define one"}}),
    ],
)
def test_a_server_without_chat_is_asked_for_completions(serve, lacking: Answer):
    def base_model(path: str, body: dict[str, Any], number: int) -> Answer:
        if path.endswith("/chat/completions"):
            return lacking
        return 200, {"choices": [{"index": 0, "text": "4", "finish_reason": "stop"}]}

    stub = serve(base_model)
    with pytest.warns(UserWarning, match="no chat for m .*; completions are used"):
        found = draw(stub, api="auto")
    assert found["p0", 0].text == "4"
    assert stub.paths == ["/v1/chat/completions", "/v1/completions"]
    assert stub.bodies[1]["prompt"] == "how many, 0?" + PLAIN_SEPARATOR  # as training and scoring show it


def test_a_server_with_chat_is_asked_for_chat(serve):
    stub = serve(lambda *_: (200, chat()))
    draw(stub, api="auto")
    assert stub.paths == ["/v1/chat/completions"] * 2
    assert stub.bodies[0]["max_tokens"] == 1


def test_a_server_that_ignores_the_temperature_is_told_of(serve):
    stub = serve(lambda *_: (200, chat("always this")))
    with pytest.warns(UserWarning, match="20 samples in turn are the same as the first one of their problem"):
        draw(stub, problems=4, n=8)


def test_the_address_is_no_part_of_what_decides_the_responses(monkeypatch):
    here = OpenAIEngine(model="m", base_url="http://a/v1", concurrency=2, extra_body={"top_k": 5})
    there = OpenAIEngine(model="m", base_url="http://b:1/v1", samples_per_call=4, extra_body={"top_k": 5})
    assert here.identity() == there.identity()
    assert here.identity() != OpenAIEngine(model="m").identity()
    assert "base_url" not in here.identity()
    assert here.shape() is None


def test_the_address_comes_from_the_environment_where_it_is_not_set(serve, monkeypatch):
    stub = serve(lambda *_: (200, chat()))
    monkeypatch.setenv("OPENAI_BASE_URL", f"{stub.url}/")
    engine = OpenAIEngine(model="m", api="chat")
    assert len(list(engine.sample([Request(problem_id="p", prompt="?", sample_idxs=(0,))], params=PARAMS))) == 1


def test_nothing_missing_needs_no_server():
    engine = OpenAIEngine(model="m", base_url="http://127.0.0.1:9/v1")
    request = Request(problem_id="p", prompt="?", sample_idxs=(0,), done=frozenset({0}))
    assert list(engine.sample([request], params=PARAMS)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency: is 0"),
        ({"timeout_seconds": 0}, "timeout_seconds: is 0"),
        ({"template": "Q:"}, "template: is 'Q:'"),
        ({"extra_body": {"messages": []}}, r"extra_body\.messages"),
        ({"extra_body": {"seed": 3}}, r"extra_body\.seed"),
        ({"api": "responses"}, "api"),
        ({"api_key": KEY}, "api_key: no such setting"),
    ],
)
def test_bad_options_are_refused_by_name(options: Mapping[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        build(OpenAIEngine, [options, {"model": "m"}])


def test_an_address_that_is_none_is_refused():
    engine = OpenAIEngine(model="m", base_url="localhost:8000")
    with pytest.raises(FreePRMError, match="base_url: is 'localhost:8000'; expected an address such as"):
        list(engine.sample([Request(problem_id="p", prompt="?", sample_idxs=(0,))], params=PARAMS))


def test_the_engine_is_found_by_name():
    assert load("engines", "openai") is OpenAIEngine


def test_samples_go_on_from_a_beginning_where_the_server_can(serve):
    stub = serve(lambda path, body, number: (200, chat(" It is 4.")))
    request = Request(problem_id="p", prompt="2 + 2?", prefix="Add them.\n", sample_idxs=(0,))
    with pytest.raises(ConfigError, match=r"continues=true .* api=completions"):
        list(OpenAIEngine(model="m", base_url=stub.url).sample([request], params=PARAMS))
    assert not stub.bodies
    engine = OpenAIEngine(model="m", base_url=stub.url, api="chat", continues=True)
    (sampled,) = engine.sample([request], params=PARAMS)
    assert sampled.text == "Add them. It is 4."
    assert stub.bodies[0]["messages"][-1] == {"role": "assistant", "content": "Add them."}
    completing = serve(lambda path, body, number: (200, {"choices": [{"text": "It is 4.", "finish_reason": "stop"}]}))
    engine = OpenAIEngine(model="m", base_url=completing.url, api="completions")
    (sampled,) = engine.sample([request], params=PARAMS)
    assert sampled.text == "Add them.\nIt is 4."
    assert completing.bodies[0]["prompt"] == "2 + 2?\nAdd them.\n"


def test_a_prompt_that_ends_with_the_assistants_words_is_refused_of_a_server_that_would_close_them():
    talk = ({"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "Sure: "})
    request = Request(problem_id="p", prompt=talk, sample_idxs=(0,))
    with pytest.raises(ConfigError, match=r"problem 'p' is to go on from what the assistant has said.*continues=true"):
        next(OpenAIEngine(model="m").sample([request], params=SamplingParams()))


def test_that_a_server_continues_is_part_of_what_it_is():
    assert "continues" not in OpenAIEngine(model="m").identity()
    assert OpenAIEngine(model="m", continues=True).identity()["continues"] is True


async def three(give: Callable[[int], None]) -> None:
    for number in range(3):
        give(number)
        await asyncio.sleep(0)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_results_come_in_order_and_the_thread_is_gone():
    assert list(streamed(three)) == [0, 1, 2]
    assert "freeprm-openai" not in threads()


def test_results_before_an_error_are_given_and_then_the_error():
    async def fails(give: Callable[[int], None]) -> None:
        await three(give)
        raise ValueError("late")

    numbers = streamed(fails)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="late"):
        next(numbers)
    assert "freeprm-openai" not in threads()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that was started in the background ignores interrupts, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_it_waits_cancels_the_work(interruptible: None):
    cancelled = threading.Event()

    async def endless(give: Callable[[int], None]) -> None:
        give(0)
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    numbers = streamed(endless)
    next(numbers)
    threading.Timer(0.2, signal_main).start()
    with pytest.raises(KeyboardInterrupt):
        next(numbers)
    assert cancelled.is_set()
    assert "freeprm-openai" not in threads()


def signal_main() -> None:
    os.kill(os.getpid(), signal.SIGINT)
